#include <algorithm>

#include "scorers/checks.h"
#include "scorers/factories.h"
#include "scorers/window_attention.h"

namespace kvc::scorers {
namespace {

// A = softmax(scale Q_w K^T) of the window's queries over all keys, causal inside the window;
// s_j = maxpool_j( mean over window and heads of A_ij ).
class SnapKv : public Scorer {
 public:
  explicit SnapKv(int64_t pool) : pool_(pool) {}
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kSnapKv; }
  [[nodiscard]] bool needs_queries() const override { return true; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    if (num_tokens == 0) return;
    const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
    std::vector<float> received(num_tokens, 0.0F);                           // [T]
    std::vector<float> storage(window * num_tokens);
    const MatrixF attention(storage.data(), window, num_tokens);  // [W, T]
    for (const ConstMatrixF& queries : head.queries) {
      WindowAttention(queries.RowRange(queries.rows - window, window), head, attention);
      for (int64_t i = 0; i < window; ++i) {
        const float* row = attention.row(i);  // [T]
        for (int64_t j = 0; j < num_tokens; ++j) received[j] += row[j];
      }
    }
    Finish({.by_window = received, .heads = std::ssize(head.queries), .window = window}, scores);
  }

  void Finish(const TokenSums& sums, std::span<float> scores) const override {
    if (scores.empty()) return;
    std::vector<float> received(sums.by_window.begin(), sums.by_window.end());  // [T]
    const float weight = 1.0F / static_cast<float>(sums.window * sums.heads);
    for (float& share : received) share *= weight;
    CheckSums(*this, received, scores);  // before the maximum, which would hide a NaN
    PoolWindowApart(received, sums.window, pool_, scores);
  }

 private:
  int64_t pool_;
};

}  // namespace

std::unique_ptr<Scorer> MakeSnapKv(const ScorerOptions& options) {
  return std::make_unique<SnapKv>(PoolWidth(ScorerKind::kSnapKv, options));
}

}  // namespace kvc::scorers
