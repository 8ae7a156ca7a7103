#include "scorers/scorer.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "scorers/factories.h"

namespace kvc::scorers {

std::unique_ptr<Scorer> Scorer::Create(const ScorerSpec& spec) {
  switch (spec.kind) {
    case ScorerKind::kSnapKv:
      return MakeSnapKv(spec.options);
    case ScorerKind::kExpectedAttention:
      return MakeExpectedAttention(spec.options);
    case ScorerKind::kKeyDiff:
      return MakeKeyDiff();
    case ScorerKind::kKnorm:
      return MakeKnorm();
    case ScorerKind::kStreaming:
      return MakeStreaming();
    case ScorerKind::kOutputError:
      return MakeOutputError(spec.options);
  }
  KVC_THROW(kInternal, "scorer: expected an enumerator that has a scorer");
}

void CombineHeads(const Scorer& scorer,
                  std::span<const std::vector<float>> head_scores,
                  std::span<float> scores) {
  KVC_CHECK(!head_scores.empty(), kBadShape, "combined scores: expected a head or more, got none");
  for (const std::vector<float>& head : head_scores) {
    KVC_CHECK(head.size() == scores.size(), kBadShape,
              "combined scores: expected {} scores of each head, got {}", scores.size(),
              head.size());
  }
  if (head_scores.size() == 1) {
    std::ranges::copy(head_scores.front(), scores.begin());
    return;
  }
  std::ranges::fill(scores, 0.0F);
  for (const std::vector<float>& head : head_scores) {
    double sum = 0.0;
    for (const float score : head) sum += std::abs(score);
    // A head that scores every token 0 has nothing to say.
    if (sum == 0.0) continue;
    const double mean = sum * static_cast<double>(head_scores.size());
    const float weight = scorer.comparable() ? 1.0F : static_cast<float>(1.0 / mean);
    for (size_t j = 0; j < head.size(); ++j) scores[j] += weight * head[j];
  }
}

}  // namespace kvc::scorers
