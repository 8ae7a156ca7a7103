#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "kernels/matmul.h"
#include "scorers/checks.h"
#include "scorers/factories.h"
#include "scorers/window_attention.h"

namespace kvc::scorers {
namespace {

// A token with more of a query's attention than this is left out of the expanded square, which
// would lose its digits: at most one token for each query.
constexpr float kDominant = 0.5F;
// The others have nothing below this, and its inverse is a float.
constexpr double kNothing = 1e-30;

// Without token j the softmax of query i spreads over the others, and its output
// o_i = sum_j a_ij v_j moves by a_ij/(1-a_ij) (v_j - o_i). As the residual stream sees it:
//
//   e_ij = (a_ij/(1-a_ij))^2 (v_j - o_i) M (v_j - o_i)^T
//        = (a_ij/(1-a_ij))^2 (v_j M v_j^T - 2 o_i M v_j^T + o_i M o_i^T)
//
// so all of e is products of whole matrices. For a dominant token the sum over the others is at
// hand, o'_i = (o_i - a_ij v_j)/(1-a_ij), and e_ij = a_ij^2 (v_j - o'_i) M (v_j - o'_i)^T.
//
// s_j = maxpool_j( max or mean over queries and the group's heads of e_ij ) / residual_energy.
class OutputError : public Scorer {
 public:
  OutputError(const ScorerOptions& options, int64_t pool)
      : options_(options), pool_(pool), keydiff_(MakeKeyDiff()) {}
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kOutputError; }
  [[nodiscard]] bool needs_queries() const override { return true; }
  [[nodiscard]] bool needs_output() const override { return true; }
  [[nodiscard]] bool comparable() const override { return true; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    if (num_tokens == 0) return;
    const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
    Work work(window, num_tokens, head.values.cols);
    std::vector<float> errors(num_tokens, 0.0F);  // [T]
    for (size_t h = 0; h < head.queries.size(); ++h) AddHead(head, h, work, errors);
    double weight = options_.relative ? 1.0 / head.residual_energy : 1.0;
    if (options_.mean) weight /= static_cast<double>(window * std::ssize(head.queries));
    for (float& error : errors) error = static_cast<float>(error * weight);
    PoolApart(errors, window, pool_, scores);
    if (options_.keydiff > 0.0) MixKeyDiff(head, window, scores);
  }

 private:
  // What one query head needs, reused by the next.
  struct Work {
    std::vector<float> storage;
    MatrixF attention;        // [W, T], a; dominant tokens 0
    MatrixF cross;            // [W, T], o M v^T, then e
    MatrixF projected;        // [T, D], v M
    MatrixF output;           // [W, D], o' times its weight, then o
    MatrixF output_m;         // [W, D], o M
    MatrixF dominant;         // [W, D], v_j - o' of the dominant token
    MatrixF dominant_m;       // [W, D], that times M
    std::vector<float> norm;  // [T], v M v^T

    Work(int64_t window, int64_t num_tokens, int64_t width)
        : storage(2 * window * num_tokens + num_tokens * width + 4 * window * width),
          norm(num_tokens) {
      float* next = storage.data();
      const auto take = [&next](int64_t rows, int64_t cols) {
        const MatrixF matrix(next, rows, cols);
        next += rows * cols;
        return matrix;
      };
      attention = take(window, num_tokens);
      cross = take(window, num_tokens);
      projected = take(num_tokens, width);
      output = take(window, width);
      output_m = take(window, width);
      dominant = take(window, width);
      dominant_m = take(window, width);
    }
  };

  // The token that takes most of a query's attention.
  struct Dominant {
    int64_t token = -1;  // none
    float attention = 0.0F;
  };

  // Takes the dominant token out of a row of attention.
  static Dominant TakeDominant(std::span<float> row) {
    const auto largest = std::ranges::max_element(row);
    if (!(*largest > kDominant)) return {};
    const Dominant dominant = {largest - row.begin(), *largest};
    *largest = 0.0F;
    return dominant;
  }

  // work.output holds the sum over the other tokens; completes it and fills work.dominant.
  static void Complete(const HeadInput& head, int64_t i, const Dominant& dominant, Work& work) {
    const int64_t width = head.values.cols;
    float* difference = work.dominant.row(i);  // [D]
    if (dominant.token < 0) {
      std::fill_n(difference, width, 0.0F);
      return;
    }
    const float* row = work.attention.row(i);
    const double rest = std::accumulate(row, row + work.attention.cols, 0.0);
    const float inverse = rest > kNothing ? static_cast<float>(1.0 / rest) : 0.0F;
    const float* value = head.values.row(dominant.token);  // [D]
    float* output = work.output.row(i);
    for (int64_t d = 0; d < width; ++d) {
      difference[d] = value[d] - inverse * output[d];
      output[d] += dominant.attention * value[d];
    }
  }

  // Turns work.cross into e. NaN and infinity stay what they are.
  static void FinishRow(int64_t i, const Dominant& dominant, int64_t width, Work& work) {
    const float* attention = work.attention.row(i);
    float* row = work.cross.row(i);
    const float own = Dot(work.output.row(i), work.output_m.row(i), width);  // o M o^T
    const int64_t num_tokens = work.cross.cols;
    for (int64_t j = 0; j < num_tokens; ++j) {
      const float share = attention[j] / (1.0F - attention[j]);
      const float square = work.norm[j] - 2.0F * row[j] + own;
      row[j] = share * share * (square < 0.0F ? 0.0F : square);
    }
    if (dominant.token < 0) return;
    const float square = Dot(work.dominant.row(i), work.dominant_m.row(i), width);
    row[dominant.token] = dominant.attention * dominant.attention * (square < 0.0F ? 0.0F : square);
  }

  void AddHead(const HeadInput& head, size_t h, Work& work, std::span<float> errors) const {
    const int64_t window = work.attention.rows;
    const int64_t width = head.values.cols;
    const ConstMatrixF queries = head.queries[h];
    const ConstMatrixF gram = head.output_grams[h];
    WindowAttention(queries.RowRange(queries.rows - window, window), head, work.attention);
    std::vector<Dominant> dominant;
    for (int64_t i = 0; i < window; ++i) {
      dominant.push_back(
          TakeDominant({work.attention.row(i), static_cast<size_t>(work.attention.cols)}));
    }
    kernels::GemmNN(work.attention, head.values, false, work.output);
    for (int64_t i = 0; i < window; ++i) Complete(head, i, dominant[i], work);
    kernels::GemmNN(work.output, gram, false, work.output_m);
    kernels::GemmNN(work.dominant, gram, false, work.dominant_m);
    kernels::GemmNN(head.values, gram, false, work.projected);
    kernels::GemmNT(1.0F, work.output, work.projected, false, work.cross);
    for (int64_t j = 0; j < head.values.rows; ++j) {
      work.norm[j] = Dot(work.projected.row(j), head.values.row(j), width);
    }
    for (int64_t i = 0; i < window; ++i) {
      FinishRow(i, dominant[i], width, work);
      Reduce({work.cross.row(i), errors.size()}, errors);
    }
  }

  void Reduce(std::span<const float> row, std::span<float> errors) const {
    float sum = 0.0F;  // finite only where every error is: a maximum would hide a NaN
    for (size_t j = 0; j < row.size(); ++j) {
      sum += row[j];
      errors[j] = options_.mean ? errors[j] + row[j] : std::max(errors[j], row[j]);
    }
    if (!std::isfinite(sum)) CheckFinite(*this, row);
  }

  // The token that KeyDiff ranks p-th of those that may be dropped gets at least the score that
  // ranks (1 - share)/share p-th, so that of any number of best tokens KeyDiff has chosen its
  // share, and scores keep the unit of the error.
  void MixKeyDiff(const HeadInput& head, int64_t window, std::span<float> scores) const {
    const int64_t num_tokens = std::ssize(scores);
    const int64_t first = std::min(head.sinks, num_tokens);
    const int64_t count = num_tokens - window - first;
    if (count <= 0) return;
    std::vector<float> distinct(num_tokens);
    keydiff_->Score(head, distinct);
    const std::span<float> ranked = scores.subspan(first, count);
    std::vector<float> sorted(ranked.begin(), ranked.end());
    std::ranges::sort(sorted, std::greater<>());
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(
        order, [&](int64_t a, int64_t b) { return distinct[first + a] > distinct[first + b]; });
    const double step = (1.0 - options_.keydiff) / options_.keydiff;
    for (int64_t p = 0; p < count; ++p) {
      const auto rank = static_cast<int64_t>(static_cast<double>(p) * step);
      if (rank >= count) break;
      ranked[order[p]] = std::max(ranked[order[p]], sorted[rank]);
    }
  }

  ScorerOptions options_;
  int64_t pool_;
  std::unique_ptr<Scorer> keydiff_;
};

}  // namespace

std::unique_ptr<Scorer> MakeOutputError(const ScorerOptions& options) {
  KVC_CHECK(options.keydiff >= 0.0 && options.keydiff < 1.0,
            kUsage,
            "output-error: expected a KeyDiff share of 0 or more below 1, got ",
            options.keydiff);
  return std::make_unique<OutputError>(options, PoolWidth(ScorerKind::kOutputError, options));
}

}  // namespace kvc::scorers
