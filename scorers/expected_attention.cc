#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "kernels/elementwise.h"
#include "kernels/matmul.h"
#include "linalg/products.h"
#include "scorers/checks.h"
#include "scorers/factories.h"
#include "scorers/rotation.h"

namespace kvc::scorers {
namespace {

// The rows that are worked on at once: a block of them and its product stay in the L2 cache.
constexpr int64_t kBlockRows = 512;

// Mean and covariance (empty when not wanted) of the query that is expected at the coming
// positions.
struct QueryStatistics {
  std::vector<float> mean;        // [D_k]
  std::vector<float> covariance;  // [D_k, D_k], symmetric
};

std::vector<float> MeanRow(ConstMatrixF x) {
  std::vector<double> sum(x.cols, 0.0);
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t d = 0; d < x.cols; ++d) sum[d] += x(t, d);
  }
  std::vector<float> mean(x.cols);
  std::ranges::transform(sum, mean.begin(), [&x](double value) {
    return static_cast<float>(value / static_cast<double>(x.rows));
  });
  return mean;
}

// The covariance (1/T) sum_t (x_t - mean)^T (x_t - mean) [D, D], one block of rows after the other.
std::vector<float> Covariance(ConstMatrixF x, std::span<const float> mean) {
  std::vector<float> covariance(x.cols * x.cols, 0.0F);
  std::vector<float> transposed(x.cols * kBlockRows);  // [D, block]
  for (int64_t begin = 0; begin < x.rows; begin += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, x.rows - begin);
    for (int64_t t = 0; t < rows; ++t) {
      const float* row = x.row(begin + t);
      for (int64_t d = 0; d < x.cols; ++d) transposed[d * kBlockRows + t] = row[d] - mean[d];
    }
    const ConstMatrixF block(transposed.data(), x.cols, rows, kBlockRows);
    linalg::GemmNT(1.0F / static_cast<float>(x.rows), block, block, begin > 0,
                   MatrixF(covariance.data(), x.cols, x.cols));
  }
  return covariance;
}

// mu' = Rbar mu and Sigma' = Rbar Sigma Rbar^T for the rows of queries [T', D_k].
QueryStatistics FutureQueries(ConstMatrixF queries,
                              const MeanRotation& rotation,
                              bool use_covariance) {
  QueryStatistics statistics;
  const int64_t width = queries.cols;
  statistics.mean = MeanRow(queries);
  if (use_covariance) {
    statistics.covariance = Covariance(queries, statistics.mean);
    float* sigma = statistics.covariance.data();
    for (int64_t d = 0; d < width; ++d) Rotate(rotation, sigma + d, width);  // columns: Rbar Sigma
    for (int64_t d = 0; d < width; ++d) Rotate(rotation, sigma + d * width, 1);
  }
  Rotate(rotation, statistics.mean.data(), 1);
  return statistics;
}

// l_j = scale k_j . mu' + scale^2/2 k_j Sigma' k_j^T: log of E[exp(scale k_j . q)] for normal q.
void ExpectedLogits(ConstMatrixF keys,
                    const QueryStatistics& statistics,
                    double scale,
                    std::span<float> logits) {
  const int64_t width = keys.cols;
  const float linear = static_cast<float>(scale);
  const float square = static_cast<float>(0.5 * scale * scale);
  std::vector<float> storage(statistics.covariance.empty() ? 0 : kBlockRows * width);
  for (int64_t begin = 0; begin < keys.rows; begin += kBlockRows) {
    const int64_t rows = std::min(kBlockRows, keys.rows - begin);
    const MatrixF product(storage.data(), rows, width);  // [block, D_k] = K Sigma'
    if (!statistics.covariance.empty()) {
      linalg::GemmNT(1.0F, keys.RowRange(begin, rows),
                     ConstMatrixF(statistics.covariance.data(), width, width), false, product);
    }
    for (int64_t j = 0; j < rows; ++j) {
      const float* key = keys.row(begin + j);
      logits[begin + j] = linear * Dot(key, statistics.mean.data(), width);
      if (!statistics.covariance.empty()) {
        logits[begin + j] += square * Dot(key, product.row(j), width);
      }
    }
  }
}

// s_j = (mean over heads of softmax_j(l_j) + eps) |v_j|. The sinks are left out of the statistics
// of the queries and of the softmax, in which they would leave nothing for the others; they get the
// highest score [ExpectedAttention].
class ExpectedAttention : public Scorer {
 public:
  explicit ExpectedAttention(const ScorerOptions& options) : options_(options) {}
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kExpectedAttention; }
  [[nodiscard]] bool needs_prompt_queries() const override { return true; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    if (num_tokens == 0) return;
    CheckFrequencies(*this, head);
    const int64_t sinks = num_tokens > head.sinks ? head.sinks : 0;
    const std::span<float> ranked = scores.subspan(sinks);
    MeanAttention(head, sinks, ranked);
    for (int64_t j = 0; j < std::ssize(ranked); ++j) {
      ranked[j] = (ranked[j] + static_cast<float>(options_.epsilon)) *
                  Norm(head.values.row(sinks + j), head.values.cols);
    }
    Finish({.by_prompt = scores, .sinks = head.sinks}, scores);
  }

  void Finish(const TokenSums& sums, std::span<float> scores) const override {
    if (scores.empty()) return;
    const int64_t sinks = std::ssize(scores) > sums.sinks ? sums.sinks : 0;
    const std::span<float> ranked = scores.subspan(sinks);
    CheckSums(*this, sums.by_prompt.subspan(sinks), ranked);
    if (sums.by_prompt.data() != scores.data()) {
      std::ranges::copy(sums.by_prompt.subspan(sinks), ranked.begin());
    }
    std::ranges::fill(scores.first(sinks), std::ranges::max(ranked));
  }

 private:
  // attention_j = mean over the group's heads of softmax_j(l_j), j = sinks .. T-1.
  void MeanAttention(const HeadInput& head, int64_t sinks, std::span<float> attention) const {
    const int64_t count = std::ssize(attention);
    const ConstMatrixF keys = head.keys.RowRange(sinks, count);
    const MeanRotation rotation =
        AverageRotation(head.rope_frequencies, head.first_position + head.keys.rows,
                        options_.future, head.rope_factor);
    std::vector<float> logits(count);  // [T - sinks]
    std::ranges::fill(attention, 0.0F);
    for (const ConstMatrixF& queries : head.prompt_queries) {
      const int64_t skipped = queries.rows > sinks ? sinks : 0;
      ExpectedLogits(keys,
                     FutureQueries(queries.RowRange(skipped, queries.rows - skipped), rotation,
                                   options_.use_covariance),
                     head.scale, logits);
      kernels::SoftmaxRows({logits.data(), 1, count});
      for (int64_t j = 0; j < count; ++j) attention[j] += logits[j];
    }
    const float weight = 1.0F / static_cast<float>(head.prompt_queries.size());
    for (float& share : attention) share *= weight;
  }

  ScorerOptions options_;
};

}  // namespace

std::unique_ptr<Scorer> MakeExpectedAttention(const ScorerOptions& options) {
  KVC_CHECK(options.future >= 1, kUsage,
            "expected-attention: expected 1 or more future positions, got {}", options.future);
  KVC_CHECK(options.epsilon >= 0.0, kUsage,
            "expected-attention: expected an epsilon of 0 or more, got {}", options.epsilon);
  return std::make_unique<ExpectedAttention>(options);
}

}  // namespace kvc::scorers
