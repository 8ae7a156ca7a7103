#pragma once
// The external data file of a model: the place of each weight and its elements.

#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/checkpoint/checkpoint.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Alignment of offsets, so that a weight can be mapped alone (docs/formats/onnx.md).
inline constexpr int64_t kDataAlignment = 4096;

// Sets `bytes` and `offset` of every weight, in order and aligned. Returns the size of the file.
int64_t PlaceWeights(std::vector<Weight>& weights);

// Writes the placed weights to `path`, one matrix in memory at a time. Throws kNumeric when a
// finite weight is infinite in its dtype, naming it; kIo when the file cannot be written.
void WriteWeights(const Checkpoint& checkpoint,
                  const std::vector<Weight>& weights,
                  const std::filesystem::path& path,
                  Progress& progress);

// Returns the elements of a weight [rows, columns] as floats, padding included. Used by tests.
[[nodiscard]] std::vector<float> WeightValues(const Checkpoint& checkpoint, const Weight& weight);

}  // namespace kvc::onnx_export
