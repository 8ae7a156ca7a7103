#include <algorithm>

#include "scorers/checks.h"
#include "scorers/factories.h"

namespace kvc::scorers {
namespace {

// s_j = -|k_j|: keys of small norm tend to be attended to [Knorm].
class Knorm : public Scorer {
 public:
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kKnorm; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    for (int64_t j = 0; j < head.keys.rows; ++j) {
      scores[j] = -Norm(head.keys.row(j), head.keys.cols);
    }
    Finish({.by_keys = scores}, scores);
  }

  void Finish(const TokenSums& sums, std::span<float> scores) const override {
    CheckSums(*this, sums.by_keys, scores);
    if (sums.by_keys.data() != scores.data()) std::ranges::copy(sums.by_keys, scores.begin());
  }
};

}  // namespace

std::unique_ptr<Scorer> MakeKnorm() { return std::make_unique<Knorm>(); }

}  // namespace kvc::scorers
