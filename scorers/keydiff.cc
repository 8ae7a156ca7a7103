#include <algorithm>

#include "scorers/checks.h"
#include "scorers/factories.h"

namespace kvc::scorers {
namespace {

// The least length that a vector counts as: a zero key has cosine 0 with everything.
constexpr float kSmallestNorm = 1e-12F;

// anchor = mean_j k_j / |k_j|  (double: T terms);  s_j = -cos(k_j, anchor): keys unlike the others
// are the distinctive ones [KeyDiff].
class KeyDiff : public Scorer {
 public:
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kKeyDiff; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    const int64_t width = head.keys.cols;
    if (num_tokens == 0) return;
    std::vector<float> inverse_norms(num_tokens);  // [T]
    std::vector<double> sum(width, 0.0);           // [D_k]
    for (int64_t j = 0; j < num_tokens; ++j) {
      const float* key = head.keys.row(j);  // [D_k]
      inverse_norms[j] = 1.0F / std::max(Norm(key, width), kSmallestNorm);
      for (int64_t d = 0; d < width; ++d) sum[d] += inverse_norms[j] * key[d];
    }
    std::vector<float> anchor(width);  // [D_k]
    std::ranges::transform(sum, anchor.begin(), [num_tokens](double x) {
      return static_cast<float>(x / static_cast<double>(num_tokens));
    });
    const float inverse_anchor_norm = 1.0F / std::max(Norm(anchor.data(), width), kSmallestNorm);
    for (int64_t j = 0; j < num_tokens; ++j) {
      scores[j] =
          -Dot(head.keys.row(j), anchor.data(), width) * inverse_norms[j] * inverse_anchor_norm;
    }
    Finish({.by_keys = scores}, scores);
  }

  void Finish(const TokenSums& sums, std::span<float> scores) const override {
    CheckSums(*this, sums.by_keys, scores);
    if (sums.by_keys.data() != scores.data()) std::ranges::copy(sums.by_keys, scores.begin());
  }
};

}  // namespace

std::unique_ptr<Scorer> MakeKeyDiff() { return std::make_unique<KeyDiff>(); }

}  // namespace kvc::scorers
