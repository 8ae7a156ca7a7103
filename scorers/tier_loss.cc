#include "scorers/tier_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "linalg/products.h"
#include "scorers/checks.h"
#include "scorers/head_view.h"
#include "scorers/output_form.h"

namespace kvc::scorers {
namespace {

// What a dominant token leaves to all others together, at least. Where it leaves less than a float
// says and its tier moves it below that, the two are as nothing against each other, and their
// quotient would be no number.
constexpr double kLeastRest = std::numeric_limits<float>::min();

// How strongly a replaced row shows in the output: c and w of the header.
struct ReplacementWeights {
  double change = 0.0;  // c
  double value = 0.0;   // w
};

// The weights for an attention of a, with rest = 1 - a. Neither e^eps nor its inverse overflows.
ReplacementWeights ExactWeights(double a, double rest, double eps) {
  if (eps > 0.0) {
    const double inverse = std::exp(-eps);
    const double sum = rest * inverse + a;
    return {-a * std::expm1(-eps) / sum, a / sum};
  }
  const double factor = std::exp(eps);
  const double sum = rest + a * factor;
  return {a * std::expm1(eps) / sum, a * factor / sum};
}

// The column of the losses to which the query heads of a group add theirs.
struct LossColumn {
  MatrixD losses;
  int64_t column = 0;
  bool mean = true;

  void Add(int64_t token, double loss) const {
    double& sum = losses(token, column);
    // A maximum would hide a NaN.
    sum = mean || std::isnan(loss) ? sum + loss : std::max(sum, loss);
  }
};

void AddDropped(const HeadInput& head, size_t h, const HeadView& view, const LossColumn& sum) {
  for (int64_t i = 0; i < view.attention.view.rows; ++i) {
    const float* attention = view.attention.view.row(i);
    const float* squares = view.squares.view.row(i);
    const DominantToken& dominant = view.dominants[i];
    for (int64_t j = 0; j < view.attention.view.cols; ++j) {
      if (j == dominant.token) continue;
      const double a = attention[j];
      const double change = a / (1.0 - a);
      sum.Add(j, change * change * squares[j]);
    }
    if (dominant.token < 0) continue;
    const double a = attention[dominant.token];
    const float* change = dominant.change.data();
    sum.Add(dominant.token, a * a * BilinearForm(change, head.output_grams[h], change));
  }
}

// One tier as one query head sees it.
struct TierView {
  FloatMatrix eps;                 // [W, T]; empty: 0
  FloatMatrix moved;               // [T, D], v^ - v; empty: 0
  FloatMatrix moved_m;             // [T, D], (v^ - v) M
  FloatMatrix cross;               // [W, T], o M (v^ - v)^T
  std::vector<float> value_cross;  // [T], v M (v^ - v)^T
  std::vector<float> squares;      // [T], (v^ - v) M (v^ - v)^T
};

FloatMatrix Difference(ConstMatrixF to, ConstMatrixF from) {
  FloatMatrix difference(from.rows, from.cols);
  for (int64_t j = 0; j < from.rows; ++j) {
    for (int64_t d = 0; d < from.cols; ++d) difference.view(j, d) = to(j, d) - from(j, d);
  }
  return difference;
}

TierView ViewOfTier(const HeadInput& head, size_t h, const HeadView& view, const TierRows& rows) {
  const int64_t window = view.attention.view.rows;
  const int64_t num_tokens = head.keys.rows;
  TierView tier;
  if (rows.keys.data != nullptr) {
    const FloatMatrix moved = Difference(rows.keys, head.keys);
    tier.eps = FloatMatrix(window, num_tokens);
    const ConstMatrixF queries = head.queries[h];
    linalg::GemmNT(static_cast<float>(head.scale), queries.RowRange(queries.rows - window, window),
                   moved.view, false, tier.eps.view);
  }
  if (rows.values.data == nullptr) return tier;
  const int64_t width = head.values.cols;
  tier.moved = Difference(rows.values, head.values);
  tier.moved_m = FloatMatrix(num_tokens, width);
  linalg::GemmNN(tier.moved.view, head.output_grams[h], false, tier.moved_m.view);
  tier.cross = FloatMatrix(window, num_tokens);
  linalg::GemmNT(1.0F, view.output.view, tier.moved_m.view, false, tier.cross.view);
  for (int64_t j = 0; j < num_tokens; ++j) {
    const float* moved_m = tier.moved_m.view.row(j);
    tier.value_cross.push_back(Dot(head.values.row(j), moved_m, width));
    tier.squares.push_back(Dot(tier.moved.view.row(j), moved_m, width));
  }
  return tier;
}

// c^2 |v-o|^2 + 2 c w (v-o) M (v^-v)^T + w^2 |v^-v|^2, from square = |v-o|^2 and
// cross = (v-o) M (v^-v)^T, norms and products being those of M.
double LossOf(
    const TierView& tier, int64_t token, ReplacementWeights weights, double square, double cross) {
  double loss = weights.change * weights.change * square;
  if (!tier.squares.empty()) {
    loss += 2.0 * weights.change * weights.value * cross +
            weights.value * weights.value * static_cast<double>(tier.squares[token]);
  }
  return loss < 0.0 ? 0.0 : loss;
}

void AddTier(const HeadInput& head,
             size_t h,
             const HeadView& view,
             const TierView& tier,
             bool first_order,
             const LossColumn& sum) {
  for (int64_t i = 0; i < view.attention.view.rows; ++i) {
    const DominantToken& dominant = view.dominants[i];
    for (int64_t j = 0; j < view.attention.view.cols; ++j) {
      const double a = view.attention.view(i, j);
      if (a == 0.0) continue;
      const bool is_dominant = j == dominant.token;
      const double rest = is_dominant ? std::max(dominant.rest, kLeastRest) : 1.0 - a;
      const double eps = tier.eps.data.empty() ? 0.0 : tier.eps.view(i, j);
      ReplacementWeights weights =
          first_order ? ReplacementWeights{a * eps, a} : ExactWeights(a, rest, eps);
      double square = view.squares.view(i, j);
      double cross = tier.squares.empty()
                         ? 0.0
                         : static_cast<double>(tier.value_cross[j]) - tier.cross.view(i, j);
      if (is_dominant) {
        // v - o = rest (v - o of the others)
        const float* change = dominant.change.data();
        weights.change *= rest;
        square = BilinearForm(change, head.output_grams[h], change);
        cross =
            tier.squares.empty() ? 0.0 : Dot(change, tier.moved_m.view.row(j), head.values.cols);
      }
      sum.Add(j, LossOf(tier, j, weights, square, cross));
    }
  }
}

void CheckTierRows(const char* what, ConstMatrixF tier, ConstMatrixF head) {
  KVC_CHECK(tier.data == nullptr || (tier.rows == head.rows && tier.cols == head.cols), kBadShape,
            "tier losses: expected {} [{}, {}], got [{}, {}]", what, head.rows, head.cols,
            tier.rows, tier.cols);
}

void CheckTierInput(const HeadInput& head, std::span<const TierRows> tiers, MatrixD losses) {
  bool fits = !head.queries.empty() && head.output_grams.size() == head.queries.size() &&
              head.values.rows == head.keys.rows;
  for (size_t h = 0; fits && h < head.queries.size(); ++h) {
    const ConstMatrixF gram = head.output_grams[h];
    fits = head.queries[h].cols == head.keys.cols && head.queries[h].rows > 0 &&
           head.queries[h].rows == head.queries[0].rows && gram.rows == head.values.cols &&
           gram.cols == head.values.cols;
  }
  KVC_CHECK(fits, kBadShape,
            "tier losses: expected as many values as keys and, for each query head, queries as "
            "wide as keys and an output matrix as wide as values");
  KVC_CHECK(losses.rows == head.keys.rows && losses.cols == 1 + std::ssize(tiers), kBadShape,
            "tier losses: expected room for [{}, {}], got [{}, {}]", head.keys.rows,
            1 + std::ssize(tiers), losses.rows, losses.cols);
  for (const TierRows& rows : tiers) {
    CheckTierRows("keys", rows.keys, head.keys);
    CheckTierRows("values", rows.values, head.values);
  }
}

}  // namespace

void ScaleLosses(const TokenSums& sums, const TierLossOptions& options, MatrixD losses) {
  double weight = options.relative ? 1.0 / sums.residual_energy : 1.0;
  if (options.mean) weight /= static_cast<double>(sums.window * sums.heads);
  for (int64_t j = 0; j < losses.rows; ++j) {
    for (int64_t t = 0; t < losses.cols; ++t) {
      losses(j, t) *= weight;
      KVC_CHECK(std::isfinite(losses(j, t)), kNumeric,
                "tier losses: token {}: expected a finite loss, got {}", j, losses(j, t));
    }
  }
}

void TierLosses(const HeadInput& head,
                std::span<const TierRows> tiers,
                const TierLossOptions& options,
                MatrixD losses) {
  CheckTierInput(head, tiers, losses);
  for (int64_t j = 0; j < losses.rows; ++j) std::fill_n(losses.row(j), losses.cols, 0.0);
  const int64_t num_tokens = head.keys.rows;
  if (num_tokens == 0) return;
  const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
  for (size_t h = 0; h < head.queries.size(); ++h) {
    const HeadView view = ViewFromHead(head, h, window);
    AddDropped(head, h, view, {losses, 0, options.mean});
    for (size_t t = 0; t < tiers.size(); ++t) {
      const TierView tier = ViewOfTier(head, h, view, tiers[t]);
      const LossColumn sum = {losses, static_cast<int64_t>(1 + t), options.mean};
      AddTier(head, h, view, tier, options.first_order, sum);
    }
  }
  ScaleLosses({.heads = std::ssize(head.queries),
               .window = window,
               .residual_energy = head.residual_energy},
              options, losses);
}

TierLossOptions TierLossOptionsOf(const ScorerSpec& scorer) {
  TierLossOptions options;
  options.mean =
      scorer.kind != ScorerKind::kOutputError || scorer.options.mean || scorer.options.prompt > 0;
  return options;
}

bool ScoresAreLosses(ScorerKind kind) {
  return kind == ScorerKind::kSnapKv || kind == ScorerKind::kExpectedAttention ||
         kind == ScorerKind::kOutputError;
}

void ScaleToScores(std::span<const float> scores, const LossMapView& map, MatrixD losses) {
  for (int64_t j = 0; j < losses.rows; ++j) {
    const double guess = scores[j];
    KVC_CHECK(guess >= 0.0, kNumeric,
              "tier losses: token {}: expected a score that is a loss, 0 or more, got {}", j,
              guess);
    const double score = map(guess);
    const double dropped = losses(j, 0);
    for (int64_t t = 0; t < losses.cols; ++t) {
      double& loss = losses(j, t);
      if (std::isinf(score)) {
        loss = score;
      } else {
        loss = dropped > 0.0 ? score * (loss / dropped) : score;
      }
    }
  }
}

}  // namespace kvc::scorers
