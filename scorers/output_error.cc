#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/base/error.h"
#include "kernels/elementwise.h"
#include "kernels/row_product.h"
#include "scorers/checks.h"
#include "scorers/expected_queries.h"
#include "scorers/factories.h"
#include "scorers/output_change.h"
#include "scorers/rotation.h"
#include "scorers/window_attention.h"

namespace kvc::scorers {
namespace {

// The queries of the prompt that are worked on at once: up to 128, fewer where a row of attention
// is so long that a block would exceed 16 MiB.
int64_t BlockQueries(int64_t num_tokens) {
  constexpr int64_t kElements = int64_t{4} << 20;
  return std::clamp<int64_t>(kElements / num_tokens, 16, 128);
}

// The scorer `output-error`. By the window's queries alone, with e_ij of OutputChange:
//
//   s_j = maxpool_j( max or mean over queries and the group's heads of e_ij ) / residual_energy.
//
// With `prompt` the text that follows is expected to ask what the prompt has asked so far: up to so
// many of its queries, evenly spaced, are turned from their positions to one of the next `future`
// positions, from which they see every token, and s_j is the mean over them and the heads, not
// pooled. A share `recent` of the tokens is then chosen by the window, whose last words may be a
// question, and a share `keydiff` by KeyDiff.
class OutputError : public Scorer {
 public:
  OutputError(const ScorerOptions& options, int64_t pool)
      : options_(options), pool_(pool), keydiff_(MakeKeyDiff()) {}
  [[nodiscard]] ScorerKind kind() const override { return ScorerKind::kOutputError; }
  [[nodiscard]] bool needs_queries() const override { return true; }
  [[nodiscard]] bool needs_prompt_queries() const override { return options_.prompt > 0; }
  [[nodiscard]] bool needs_output() const override { return true; }
  [[nodiscard]] bool comparable() const override { return true; }

  void Score(const HeadInput& head, std::span<float> scores) const override {
    CheckInput(*this, head, scores);
    const int64_t num_tokens = head.keys.rows;
    if (num_tokens == 0) return;
    const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
    const bool by_prompt = options_.prompt > 0;
    if (by_prompt) CheckFrequencies(*this, head);
    OutputChange change(by_prompt ? std::max(window, BlockQueries(num_tokens)) : window,
                        head.values, head.rounding);
    const std::vector<MeanRotation> turns = by_prompt ? Turns(head) : std::vector<MeanRotation>();
    std::vector<float> errors(num_tokens, 0.0F);                    // [T], window's
    std::vector<float> expected(by_prompt ? num_tokens : 0, 0.0F);  // [T], prompt's
    for (size_t h = 0; h < head.queries.size(); ++h) {
      change.SetGram(head.output_grams[h]);
      AddWindow(head, h, window, change, errors);
      if (by_prompt) AddPrompt(head, h, turns, change, expected);
    }
    std::vector<float> by_keys(options_.keydiff > 0.0 ? num_tokens : 0);  // [T]
    if (options_.keydiff > 0.0) keydiff_->Score(head, by_keys);
    Finish({.by_window = errors,
            .by_prompt = expected,
            .by_keys = by_keys,
            .heads = std::ssize(head.queries),
            .window = window,
            .prompt_queries = by_prompt ? PromptCount(head) : 0,
            .sinks = head.sinks,
            .residual_energy = head.residual_energy},
           scores);
  }

  void Finish(const TokenSums& sums, std::span<float> scores) const override {
    if (scores.empty()) return;
    KVC_CHECK(sums.residual_energy > 0.0 && std::isfinite(sums.residual_energy), kNumeric,
              "{}: expected a residual stream above 0, got a squared norm of {}",
              ScorerName(kind()), sums.residual_energy);
    const bool by_prompt = options_.prompt > 0;
    const double weight = options_.relative ? 1.0 / sums.residual_energy : 1.0;
    const auto heads = static_cast<double>(sums.heads);
    CheckSums(*this, sums.by_window, scores);
    std::vector<float> errors(sums.by_window.begin(), sums.by_window.end());
    std::vector<float> pooled(by_prompt ? scores.size() : 0);
    Scale(options_.mean ? weight / (static_cast<double>(sums.window) * heads) : weight, errors);
    PoolWindowApart(errors, sums.window, pool_, by_prompt ? pooled : scores);
    if (by_prompt) {
      CheckSums(*this, sums.by_prompt, scores);
      std::ranges::copy(sums.by_prompt, scores.begin());
      Scale(weight / (static_cast<double>(sums.prompt_queries) * heads), scores);
      ReserveShare(sums, pooled, options_.recent, scores);
    }
    if (options_.keydiff > 0.0) {
      CheckSums(*this, sums.by_keys, scores);
      ReserveShare(sums, sums.by_keys, options_.keydiff, scores);
    }
  }

 private:
  static void Scale(double weight, std::span<float> errors) {
    for (float& error : errors) error = static_cast<float>(error * weight);
  }

  void AddWindow(const HeadInput& head,
                 size_t h,
                 int64_t window,
                 OutputChange& change,
                 std::span<float> errors) const {
    const ConstMatrixF queries = head.queries[h];
    const ConstMatrixF last = queries.RowRange(queries.rows - window, window);
    WindowAttention(last, head, change.attention(window));
    change.Find(window);
    change.Reduce(options_.mean ? kernels::LossReduction::kSum : kernels::LossReduction::kMax,
                  errors);
  }

  // The number of the prompt's queries that are taken.
  [[nodiscard]] int64_t PromptCount(const HeadInput& head) const {
    return ExpectedCount(head.prompt_queries.front().rows, head.sinks, options_.prompt);
  }

  // The rotations of the prompt's queries to the coming positions, which all heads share.
  [[nodiscard]] std::vector<MeanRotation> Turns(const HeadInput& head) const {
    const int64_t first = head.first_position + head.keys.rows;
    const RotationTable table(head.rope_frequencies, first, options_.future, head.rope_factor);
    std::vector<MeanRotation> turns;
    for (int64_t i = 0; i < PromptCount(head); ++i) {
      turns.push_back(table.At(ExpectedPosition(i, first, options_.future)));
    }
    return turns;
  }

  void AddPrompt(const HeadInput& head,
                 size_t h,
                 std::span<const MeanRotation> turns,
                 OutputChange& change,
                 std::span<float> expected) const {
    const ConstMatrixF all = head.prompt_queries[h];
    const int64_t count = PromptCount(head);
    const int64_t block = BlockQueries(head.keys.rows);
    FloatMatrix turned(std::min(count, block), all.cols);
    for (int64_t begin = 0; begin < count; begin += block) {
      const int64_t rows = std::min(block, count - begin);
      const MatrixF queries = turned.view.RowRange(0, rows);
      for (int64_t i = 0; i < rows; ++i) {
        const int64_t chosen = ExpectedRow(begin + i, count, all.rows, head.sinks);
        for (int64_t d = 0; d < all.cols; ++d) {
          queries(i, d) = static_cast<float>(head.scale) * all(chosen, d);
        }
        Rotate(turns[static_cast<size_t>(begin + i)], queries.row(i), 1);
      }
      const MatrixF attention = change.attention(rows);
      kernels::MultiplyRows(queries, head.keys, head.rounding, attention);
      kernels::SoftmaxRows(attention);
      change.Find(rows);
      change.Reduce(kernels::LossReduction::kSum, expected);
    }
  }

  // Gives `other` the choice of a share of the tokens. Among those that may be dropped, the token
  // that `other` ranks p-th gets at least the score with rank (1 - share)/share p, so that of any
  // number of best tokens `other` has chosen its share, and scores keep their unit.
  static void ReserveShare(const TokenSums& sums,
                           std::span<const float> other,
                           double share,
                           std::span<float> scores) {
    const int64_t num_tokens = std::ssize(scores);
    const int64_t first = std::min(sums.sinks, num_tokens);
    const int64_t count = num_tokens - sums.window - first;
    if (count <= 0 || share <= 0.0) return;
    const std::span<float> ranked = scores.subspan(first, count);
    std::vector<float> sorted(ranked.begin(), ranked.end());
    std::ranges::sort(sorted, std::greater<>());
    std::vector<int64_t> order(count);
    std::iota(order.begin(), order.end(), int64_t{0});
    std::ranges::stable_sort(
        order, [&](int64_t a, int64_t b) { return other[first + a] > other[first + b]; });
    const double step = (1.0 - share) / share;
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
  KVC_CHECK(options.keydiff >= 0.0 && options.keydiff < 1.0, kUsage,
            "output-error: expected a KeyDiff share of 0 or more below 1, got {}", options.keydiff);
  KVC_CHECK(options.recent >= 0.0 && options.recent < 1.0, kUsage,
            "output-error: expected a window's share of 0 or more below 1, got {}", options.recent);
  KVC_CHECK(options.prompt >= 0 && options.future >= 1, kUsage,
            "output-error: expected 0 or more queries of the prompt and 1 or more future "
            "positions, got {} and {}",
            options.prompt, options.future);
  return std::make_unique<OutputError>(options, PoolWidth(ScorerKind::kOutputError, options));
}

}  // namespace kvc::scorers
