#pragma once
// Tensors on the device that computes, and its mixed precision.

#include <torch/types.h>

#include "model/compute.h"
#include "model/decoder.h"

namespace kvc::model {

[[nodiscard]] torch::Device DeviceOf(const Compute& compute);
// Copies of the weights on `device`; shared where they are there already. Undefined ones stay so.
[[nodiscard]] LayerWeights PlaceOn(const LayerWeights& weights, torch::Device device);
[[nodiscard]] OuterWeights PlaceOn(const OuterWeights& weights, torch::Device device);

// While it lives, products of CUDA tensors on this thread run in `precision`. Scopes nest.
class PrecisionScope {
 public:
  explicit PrecisionScope(Precision precision);
  ~PrecisionScope();
  PrecisionScope(const PrecisionScope&) = delete;
  PrecisionScope& operator=(const PrecisionScope&) = delete;

 private:
  const bool outer_mixed_;
};

}  // namespace kvc::model
