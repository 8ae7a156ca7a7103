#pragma once
// The norms of a decoder, in LibTorch. Autograd works through them.

#include "core/checkpoint/model_config.h"
#include "model/tensor_fwd.h"

namespace kvc::model {

// Returns x / sqrt(mean(x^2) + epsilon) * weight over the last dimension of x [..., W]; weight [W].
[[nodiscard]] torch::Tensor RmsNorm(const torch::Tensor& x,
                                    const torch::Tensor& weight,
                                    double epsilon);
// Returns the family's norm of x [..., E] over the model width; weight and bias [E], the bias
// undefined where the family has none.
[[nodiscard]] torch::Tensor Norm(const ModelConfig& config,
                                 const torch::Tensor& x,
                                 const torch::Tensor& weight,
                                 const torch::Tensor& bias);

}  // namespace kvc::model
