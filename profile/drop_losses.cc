#include "profile/drop_losses.h"

#include "model/logit_weights.h"
#include "model/projections.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

// Of a query's attention that the other tokens have, at least: what rounding leaves of 1 - a.
constexpr double kLeastRest = 1e-6;

}  // namespace

Tensor DropLosses(const HeadWindow& head) {
  const Tensor v = head.values.to(torch::kFloat64);  // [T, D_v]
  Tensor logits = torch::matmul(head.queries.to(torch::kFloat64) * head.scale,
                                head.keys.to(torch::kFloat64).t());  // [H/G, Q, T]
  model::HideUnseenKeys(logits, head.window);
  const Tensor attention = torch::softmax(logits, -1);
  const Tensor moved = model::LogitWeights(attention, v, torch::matmul(attention, v),
                                           head.grams.to(torch::kFloat64));  // [H/G, Q, T]
  const Tensor rest = (1.0 - attention).clamp_min_(kLeastRest);
  return torch::mv((moved / rest.square_()).mean(0).t(), head.weight);
}

}  // namespace kvc::profile
