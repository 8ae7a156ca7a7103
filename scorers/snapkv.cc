#include <algorithm>

#include "core/error.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "scorers/checks.h"
#include "scorers/factories.h"

namespace kvc::scorers {
namespace {

// s[i] = max of x over i - pool/2 .. i + pool/2, inside the range ("same" padding).
void MaxPool(std::span<const float> x, int64_t pool, std::span<float> s) {
  const int64_t count = static_cast<int64_t>(x.size());
  const int64_t reach = pool / 2;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = std::max<int64_t>(0, i - reach);
    const int64_t end = std::min(count, i + reach + 1);
    s[i] = *std::max_element(x.begin() + begin, x.begin() + end);
  }
}

// A = softmax(scale Q_w K^T) of the window's queries over all keys, causal inside the window;
// s_j = maxpool_j( mean over window and heads of A_ij ). The tokens before the window are pooled
// among themselves, as where the window is always kept and leaves the comparison [SnapKV].
class SnapKv : public Scorer {
 public:
  explicit SnapKv(int64_t pool) : pool_(pool) {}
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kSnapKv; }
  [[nodiscard]] bool needs_queries() const override { return true; }
  [[nodiscard]] bool needs_prompt_queries() const override { return false; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    if (num_tokens == 0) return;
    const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
    std::vector<float> received(num_tokens, 0.0F);                           // [T]
    std::vector<float> storage(window * num_tokens);
    const MatrixF attention(storage.data(), window, num_tokens);  // [W, T]
    for (const ConstMatrixF& queries : head.queries) {
      AddAttention(queries.RowRange(queries.rows - window, window), head, attention, received);
    }
    const float weight = 1.0F / static_cast<float>(window * std::ssize(head.queries));
    for (float& share : received) share *= weight;
    CheckFinite(*this, received);  // before the maximum, which would hide a NaN
    const std::span<const float> all(received);
    const int64_t split = num_tokens - window;
    MaxPool(all.first(split), pool_, scores.first(split));
    MaxPool(all.subspan(split), pool_, scores.subspan(split));
  }

 private:
  // received_j += sum_i softmax_j(scale q_i . k_j), j up to the query's own position. Adds in the
  // order of the queries. `attention` is scratch.
  static void AddAttention(ConstMatrixF queries,
                           const HeadInput& head,
                           MatrixF attention,
                           std::span<float> received) {
    kernels::GemmNT(static_cast<float>(head.scale), queries, head.keys, false, attention);
    const int64_t first = head.keys.rows - queries.rows;  // position of the first query
    for (int64_t i = 0; i < queries.rows; ++i) {
      const int64_t visible = first + i + 1;
      kernels::SoftmaxRows({attention.row(i), 1, visible});
      const float* row = attention.row(i);  // [visible]
      for (int64_t j = 0; j < visible; ++j) received[j] += row[j];
    }
  }

  int64_t pool_;
};

}  // namespace

std::unique_ptr<Scorer> MakeSnapKv(const ScorerOptions& options) {
  KVC_CHECK(options.pool >= 1 && options.pool % 2 == 1,
            kUsage,
            "snapkv: expected an odd pool width, got ",
            options.pool);
  return std::make_unique<SnapKv>(options.pool);
}

}  // namespace kvc::scorers
