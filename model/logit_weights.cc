#include "model/logit_weights.h"

namespace kvc::model {

using torch::Tensor;

Tensor LogitWeights(const Tensor& attention,
                    const Tensor& values,
                    const Tensor& output,
                    const Tensor& grams) {
  const Tensor v = values.unsqueeze(0).expand({grams.size(0), values.size(0), values.size(1)});
  const Tensor seen = torch::bmm(v, grams);                                      // [h, T, D]
  const Tensor of_values = (seen * v).sum(-1).unsqueeze(1);                      // [h, 1, T]
  const Tensor of_outputs = (torch::bmm(output, grams) * output).sum(-1, true);  // [h, Q, 1]
  const Tensor mixed = torch::bmm(output, seen.transpose(1, 2));                 // [h, Q, T]
  const Tensor distances = (of_values + of_outputs - 2 * mixed).clamp_min_(0.0F);
  return distances.mul(attention).mul_(attention);
}

}  // namespace kvc::model
