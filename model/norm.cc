#include "model/norm.h"

#include <torch/types.h>

namespace kvc::model {

using torch::Tensor;

Tensor RmsNorm(const Tensor& x, const Tensor& weight, double epsilon) {
  const Tensor inverse = torch::rsqrt(x.square().mean({-1}, /*keepdim=*/true) + epsilon);
  return x * inverse * weight;
}

Tensor Norm(const ModelConfig& config, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (config.norm == NormKind::kLayer) {
    return torch::layer_norm(x, {x.size(-1)}, weight, bias, config.norm_epsilon);
  }
  return RmsNorm(x, weight, config.norm_epsilon);
}

}  // namespace kvc::model
