#pragma once
// Placement of tensors on the device that computes, and its mixed precision.

#include <torch/types.h>

#include "model/compute.h"
#include "model/decoder.h"

namespace kvc::model {

[[nodiscard]] torch::Device DeviceOf(const Compute& compute);
// Returns copies of the weights on `device`, sharing those that are already there. Undefined ones
// stay undefined.
[[nodiscard]] LayerWeights PlaceOn(const LayerWeights& weights, torch::Device device);
[[nodiscard]] OuterWeights PlaceOn(const OuterWeights& weights, torch::Device device);

// While an object exists, products of CUDA tensors on this thread run in `precision`. Scopes nest.
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
