#include "factorize/tune_steps.h"

#include <cmath>
#include <utility>

#include "factorize/tuned_weights.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr double kSmallestColumn = 0.05;

// Returns the root mean square of each column: x [rows, columns] -> [columns]. Columns that hardly
// move are raised to a share of the mean; otherwise their weights would take arbitrarily large
// steps.
Tensor ColumnSizes(const Tensor& x) {
  const Tensor sizes = x.square().mean(0, false, torch::kDouble).sqrt();  // [columns]
  return sizes.clamp_min(kSmallestColumn * sizes.mean().item<double>()).to(torch::kFloat32);
}

// Returns steps that change the products with inputs of the given sizes equally in every column:
// the root mean square of W diag(s), divided by s.
Tensor StepsFor(const Tensor& weight, const Tensor& sizes) {
  const double size = std::sqrt((weight * sizes).square().mean(torch::kDouble).item<double>());
  return (size / sizes).expand(weight.sizes());
}

// Returns the steps of the rebuild [G*D, max_n R_n], whose inputs are the latents of each group.
// Columns that no group uses are zero and get no gradient; their step is 1.
Tensor RebuildSteps(const ModelConfig& config,
                    int64_t layer,
                    const model::LayerWeights& weights,
                    const Tensor& x) {
  const Tensor value = weights.k_rebuild.detach();
  const Tensor latents = ColumnSizes(torch::matmul(x, weights.k.detach().t()));  // [sum_n R_n]
  const int64_t rows = value.size(0) / config.keys.num_groups;
  Tensor steps = torch::ones_like(value);
  int64_t column = 0;
  for (int64_t n = 0; n < config.keys.num_groups; ++n) {
    const int64_t rank = config.key_width(layer, n);
    const Tensor b = value.narrow(0, n * rows, rows).narrow(1, 0, rank);  // [rows, R_n]
    steps.narrow(0, n * rows, rows)
        .narrow(1, 0, rank)
        .copy_(StepsFor(b, latents.narrow(0, column, rank)));
    column += rank;
  }
  return steps;
}

}  // namespace

TuneSplit SplitWindows(int64_t count) {
  const bool has_middle = count > kCheckEvery / 2;
  TuneSplit split;
  for (int64_t i = 0; i < count; ++i) {
    const bool check = i % kCheckEvery == kCheckEvery / 2 || (i == 0 && !has_middle);
    (check ? split.checked : split.training).push_back(i);
  }
  return split;
}

std::vector<TunedMember> TrainedMembers(const model::LayerWeights& weights) {
  std::vector<TunedMember> members;
  for (const TunedWeight& tuned : TunedWeights()) {
    if ((weights.*tuned.weight).defined()) members.push_back(tuned.weight);
  }
  return members;
}

Tensor StepSizes(const ModelConfig& config,
                 int64_t layer,
                 const model::LayerWeights& weights,
                 TunedMember member,
                 const Tensor& x) {
  const Tensor value = (weights.*member).detach();
  if (member == &model::LayerWeights::q || member == &model::LayerWeights::k) {
    return StepsFor(value, ColumnSizes(x));
  }
  if (member == &model::LayerWeights::k_rebuild) return RebuildSteps(config, layer, weights, x);
  return StepsFor(value,
                  torch::ones({value.size(1)}, value.options()));  // of rotated keys: columns alike
}

}  // namespace kvc::factorize
