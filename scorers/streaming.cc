#include "scorers/checks.h"
#include "scorers/factories.h"

namespace kvc::scorers {
namespace {

// s_j = j. Exact in float up to 2^24 tokens.
class Streaming : public Scorer {
 public:
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kStreaming; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    Finish({}, scores);
  }

  void Finish(const TokenSums& /*sums*/, std::span<float> scores) const override {
    for (size_t j = 0; j < scores.size(); ++j) scores[j] = static_cast<float>(j);
  }
};

}  // namespace

std::unique_ptr<Scorer> MakeStreaming() { return std::make_unique<Streaming>(); }

}  // namespace kvc::scorers
