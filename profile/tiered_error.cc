#include "profile/tiered_error.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/base/error.h"
#include "model/projections.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr double kHidden = -std::numeric_limits<double>::infinity();  // a logit that counts nothing

// Logits of rows [H/G * Q, D_k] over keys [n, D_k].
Tensor LogitsOf(const Tensor& rows, const Tensor& keys) {
  return torch::mm(rows, keys.to(torch::kFloat64).t());
}

}  // namespace

TieredError::TieredError(const Tensor& queries,
                         const Tensor& keys,
                         const Tensor& values,
                         int64_t first,
                         std::span<const TierTensors> tiers,
                         const Tensor& grams,
                         const Tensor& weight,
                         double scale,
                         std::optional<int64_t> window)
    : grams_(grams.to(torch::kFloat64)), weight_(weight) {
  const int64_t share = queries.size(0);
  const int64_t count = queries.size(1);
  const int64_t tokens = keys.size(0);
  const int64_t evictable = tiers.front().keys.size(0);
  const Tensor rows =
      queries.to(torch::kFloat64).mul(scale).reshape({share * count, queries.size(2)});
  Tensor all = LogitsOf(rows, keys);  // [H/G * Q, T]
  model::HideUnseenKeys(all.view({share, count, tokens}), window);
  std::vector<Tensor> logits;
  Tensor reference = all.amax(1, /*keepdim=*/true);  // [H/G * Q, 1]
  for (const TierTensors& tier : tiers) {
    logits.push_back(LogitsOf(rows, tier.keys));
    if (window) logits.back().masked_fill_(all.narrow(1, first, evictable).isneginf(), kHidden);
    if (evictable > 0) reference = torch::maximum(reference, logits.back().amax(1, true));
    values_.push_back(tier.values.to(torch::kFloat64));
  }
  for (const Tensor& tier : logits) exponentials_.push_back((tier - reference).exp_());
  Tensor kept = (all - reference).exp_();
  const Tensor full_values = values.to(torch::kFloat64);
  output_ = torch::mm(kept, full_values) / kept.sum(1, true);
  kept.narrow(1, first, evictable).zero_();
  sum_ = torch::mm(kept, full_values);
  total_ = kept.sum(1);
  choice_.assign(evictable, 0);
}

void TieredError::Move(const std::vector<int64_t>& tokens, size_t tier, double sign) {
  if (tokens.empty()) return;
  const Tensor index = torch::tensor(tokens);
  const Tensor part = exponentials_[tier].index_select(1, index);  // [H/G * Q, tokens]
  sum_.addmm_(part, values_[tier].index_select(0, index), 1.0, sign);
  total_.add_(part.sum(1), sign);
}

double TieredError::Measure(std::span<const uint8_t> choice) {
  KVC_CHECK(choice.size() == choice_.size(), kInternal, "tiered error: one choice for each token");
  const size_t tiers = values_.size();
  std::vector<std::vector<int64_t>> leave(tiers), enter(tiers);
  for (size_t j = 0; j < choice.size(); ++j) {
    if (choice[j] == choice_[j]) continue;
    if (choice_[j] > 0) leave[choice_[j] - 1].push_back(static_cast<int64_t>(j));
    if (choice[j] > 0) enter[choice[j] - 1].push_back(static_cast<int64_t>(j));
  }
  for (size_t t = 0; t < tiers; ++t) {
    Move(leave[t], t, -1.0);
    Move(enter[t], t, 1.0);
  }
  std::ranges::copy(choice, choice_.begin());
  const Tensor change = sum_ / total_.unsqueeze(1) - output_;  // [H/G * Q, D_v]
  const Tensor heads = change.view({grams_.size(0), -1, change.size(1)});
  const Tensor squared = (torch::bmm(heads, grams_) * heads).sum(-1);  // [H/G, Q]
  const double error = torch::mv(squared, weight_).sum().item<double>();
  KVC_CHECK(std::isfinite(error), kNumeric,
            "tiered error: expected a finite number, got NaN or infinity; check the weights");
  return std::max(error, 0.0);
}

}  // namespace kvc::profile
