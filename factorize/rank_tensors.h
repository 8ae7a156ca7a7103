#pragma once
// Tensors on their way between ranks (core/base/ranks.h). They lie on the CPU and are dense. (This
// header shows LibTorch's types, like model/decoder.h.)

#include <span>
#include <vector>

#include <torch/types.h>

#include "core/base/ranks.h"

namespace kvc::factorize {

// Collective: returns every window's tensor on all ranks, in the order of the windows. Window i is
// known to rank i mod size, whose `own` are its tensors in their order; all have the shape of
// `like`, which every rank gives. A window crosses the network at a time.
[[nodiscard]] std::vector<torch::Tensor> ShareWindows(Ranks& ranks,
                                                      const std::vector<torch::Tensor>& own,
                                                      int64_t count,
                                                      const torch::Tensor& like);

// Collective: returns every part's number on all ranks; `own` are those of this rank's parts.
[[nodiscard]] std::vector<double> ShareNumbers(Ranks& ranks,
                                               std::span<const double> own,
                                               int64_t count);

// Returns the elements of a tensor of float32, dense and on the CPU.
[[nodiscard]] std::span<float> Floats(const torch::Tensor& tensor);

}  // namespace kvc::factorize
