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

// A sum of exponentials, of which the largest was 1, is made anew where less than this is left:
// what rounding left of those taken away may be as large, and the sum of those that came may be 0.
constexpr double kLeastTotal = 1e-9;

// Logits of rows [H/G * Q, D_k] over keys [n, D_k].
Tensor LogitsOf(const Tensor& rows, const Tensor& keys) {
  return torch::mm(rows, keys.to(torch::kFloat64).t());
}

}  // namespace

TieredError::TieredError(const HeadWindow& head, int64_t first, std::span<const TierTensors> tiers)
    : first_(first), grams_(head.grams.to(torch::kFloat64)), weight_(head.weight) {
  const int64_t share = head.queries.size(0);
  const int64_t count = head.queries.size(1);
  const int64_t tokens = head.keys.size(0);
  const int64_t evictable = tiers.front().keys.size(0);
  const Tensor rows = head.queries.to(torch::kFloat64)
                          .mul(head.scale)
                          .reshape({share * count, head.queries.size(2)});
  Tensor all = LogitsOf(rows, head.keys);  // [H/G * Q, T]
  model::HideUnseenKeys(all.view({share, count, tokens}), head.window);
  Tensor reference = all.amax(1, /*keepdim=*/true);  // [H/G * Q, 1]
  for (const TierTensors& tier : tiers) {
    logits_.push_back(LogitsOf(rows, tier.keys));
    if (head.window) {
      logits_.back().masked_fill_(all.narrow(1, first, evictable).isneginf(), kHidden);
    }
    if (evictable > 0) reference = torch::maximum(reference, logits_.back().amax(1, true));
    values_.push_back(tier.values.to(torch::kFloat64));
  }
  for (const Tensor& tier : logits_) exponentials_.push_back((tier - reference).exp_());
  Tensor kept = (all - reference).exp_();
  all_ = all;
  all_values_ = head.values.to(torch::kFloat64);
  output_ = torch::mm(kept, all_values_) / kept.sum(1, true);
  const Tensor faint = torch::nonzero(kept.sum(1) < kLeastTotal).flatten();
  if (faint.numel() > 0) {
    output_.index_copy_(0, faint, OutputsOf(faint, std::vector<uint8_t>(evictable, 1)));
  }
  kept.narrow(1, first, evictable).zero_();
  sum_ = torch::mm(kept, all_values_);
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

Tensor TieredError::OutputsOf(const Tensor& rows, std::span<const uint8_t> choice) const {
  Tensor logits = all_.index_select(0, rows);  // [r, T]
  Tensor values = all_values_.clone();         // [T, D_v]
  std::vector<std::vector<int64_t>> tokens(1 + values_.size());
  for (size_t j = 0; j < choice.size(); ++j) tokens[choice[j]].push_back(static_cast<int64_t>(j));
  if (!tokens[0].empty()) {
    logits.index_fill_(1, torch::tensor(tokens[0]) + first_,
                       -std::numeric_limits<double>::infinity());
  }
  for (size_t t = 0; t < values_.size(); ++t) {
    if (tokens[1 + t].empty()) continue;
    const Tensor index = torch::tensor(tokens[1 + t]);
    logits.index_copy_(1, index + first_, logits_[t].index_select(0, rows).index_select(1, index));
    values.index_copy_(0, index + first_, values_[t].index_select(0, index));
  }
  return torch::mm(torch::softmax(logits, 1), values);
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
  Tensor change = sum_ / total_.unsqueeze(1) - output_;  // [H/G * Q, D_v]
  const Tensor faint = torch::nonzero(total_ < kLeastTotal).flatten();
  if (faint.numel() > 0) {
    change.index_copy_(0, faint, OutputsOf(faint, choice) - output_.index_select(0, faint));
  }
  const Tensor heads = change.view({grams_.size(0), -1, change.size(1)});
  const Tensor squared = (torch::bmm(heads, grams_) * heads).sum(-1);  // [H/G, Q]
  const double error = torch::mv(squared, weight_).sum().item<double>();
  KVC_CHECK(std::isfinite(error), kNumeric,
            "tiered error: expected a finite number, got NaN or infinity; check the weights");
  return std::max(error, 0.0);
}

}  // namespace kvc::profile
