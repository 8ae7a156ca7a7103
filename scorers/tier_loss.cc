#include "scorers/tier_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "linalg/products.h"
#include "scorers/checks.h"
#include "scorers/window_attention.h"

namespace kvc::scorers {
namespace {

// A token with more of a query's attention than this gets its v - o by subtraction, because the
// expanded square would lose its digits: at most one token for each query.
constexpr float kDominant = 0.5F;

// A float matrix that owns its elements.
struct Matrix {
  std::vector<float> data;
  MatrixF view;

  Matrix() = default;
  Matrix(int64_t rows, int64_t cols)
      : data(static_cast<size_t>(rows * cols)), view(data.data(), rows, cols) {}
};

// How strongly a replacement shows: c and w of the header.
struct Weights {
  double change = 0.0;  // c
  double value = 0.0;   // w
};

// `rest`: 1 - a. Written so that neither e^eps nor its inverse overflows.
Weights ExactWeights(double a, double rest, double eps) {
  if (eps > 0.0) {
    const double inverse = std::exp(-eps);
    const double sum = rest * inverse + a;
    return {-a * std::expm1(-eps) / sum, a / sum};
  }
  const double factor = std::exp(eps);
  const double sum = rest + a * factor;
  return {a * std::expm1(eps) / sum, a * factor / sum};
}

// The token that takes most of a query's attention.
struct Dominant {
  int64_t token = -1;         // none
  double rest = 1.0;          // attention of all others
  std::vector<float> change;  // [D], (v - o)/rest = v - o of the others
};

// What one query head sees of the tokens.
struct HeadView {
  Matrix attention;                 // [W, T]
  Matrix output;                    // [W, D], o
  Matrix squares;                   // [W, T], (v - o) M (v - o)^T
  std::vector<Dominant> dominants;  // [W]

  HeadView(int64_t window, int64_t num_tokens, int64_t width)
      : attention(window, num_tokens), output(window, width), squares(window, num_tokens) {}
};

Dominant FindDominant(const HeadInput& head, std::span<const float> attention) {
  Dominant dominant;
  const auto largest = std::ranges::max_element(attention);
  if (!(*largest > kDominant)) return dominant;
  dominant.token = largest - attention.begin();
  const int64_t width = head.values.cols;
  std::vector<double> others(static_cast<size_t>(width), 0.0);
  double rest = 0.0;
  for (int64_t j = 0; j < std::ssize(attention); ++j) {
    if (j == dominant.token || attention[j] == 0.0F) continue;
    rest += static_cast<double>(attention[j]);
    const float* value = head.values.row(j);
    for (int64_t d = 0; d < width; ++d) others[d] += static_cast<double>(attention[j]) * value[d];
  }
  dominant.rest = rest;
  const float* value = head.values.row(dominant.token);
  for (int64_t d = 0; d < width; ++d) {
    // A token that is alone leaves an output of zero.
    const double other = rest > 0.0 ? others[d] / rest : 0.0;
    dominant.change.push_back(static_cast<float>(value[d] - other));
  }
  return dominant;
}

// x M y^T of rows.
double Form(const float* x, ConstMatrixF gram, const float* y) {
  double sum = 0.0;
  for (int64_t d = 0; d < gram.rows; ++d) {
    sum += static_cast<double>(x[d]) * Dot(gram.row(d), y, gram.cols);
  }
  return sum;
}

HeadView LookFrom(const HeadInput& head, size_t h, int64_t window) {
  const int64_t num_tokens = head.keys.rows;
  const int64_t width = head.values.cols;
  HeadView view(window, num_tokens, width);
  const ConstMatrixF queries = head.queries[h];
  WindowAttention(queries.RowRange(queries.rows - window, window), head, view.attention.view);
  linalg::GemmNN(view.attention.view, head.values, false, view.output.view);
  Matrix projected(num_tokens, width);  // v M
  linalg::GemmNN(head.values, head.output_grams[h], false, projected.view);
  linalg::GemmNT(1.0F, view.output.view, projected.view, false, view.squares.view);
  std::vector<float> norms(static_cast<size_t>(num_tokens));  // v M v^T
  for (int64_t j = 0; j < num_tokens; ++j) {
    norms[j] = Dot(projected.view.row(j), head.values.row(j), width);
  }
  for (int64_t i = 0; i < window; ++i) {
    const float* output = view.output.view.row(i);
    const auto own = static_cast<float>(Form(output, head.output_grams[h], output));  // o M o^T
    float* row = view.squares.view.row(i);
    for (int64_t j = 0; j < num_tokens; ++j) {
      const float square = norms[j] - 2.0F * row[j] + own;
      row[j] = square < 0.0F ? 0.0F : square;  // a NaN stays one
    }
    view.dominants.push_back(
        FindDominant(head, {view.attention.view.row(i), static_cast<size_t>(num_tokens)}));
  }
  return view;
}

// Where a query head's losses go.
struct Sink {
  MatrixD losses;
  int64_t column = 0;
  bool mean = true;

  void Add(int64_t token, double loss) const {
    double& place = losses(token, column);
    // A maximum would hide a NaN.
    place = mean || std::isnan(loss) ? place + loss : std::max(place, loss);
  }
};

void AddDropped(const HeadInput& head, size_t h, const HeadView& view, const Sink& sink) {
  for (int64_t i = 0; i < view.attention.view.rows; ++i) {
    const float* attention = view.attention.view.row(i);
    const float* squares = view.squares.view.row(i);
    const Dominant& dominant = view.dominants[i];
    for (int64_t j = 0; j < view.attention.view.cols; ++j) {
      if (j == dominant.token) continue;
      const double a = attention[j];
      const double change = a / (1.0 - a);
      sink.Add(j, change * change * squares[j]);
    }
    if (dominant.token < 0) continue;
    const double a = attention[dominant.token];
    const float* change = dominant.change.data();
    sink.Add(dominant.token, a * a * Form(change, head.output_grams[h], change));
  }
}

// One tier as one query head meets it.
struct TierView {
  Matrix eps;                      // [W, T]; no elements: 0
  Matrix moved;                    // [T, D], v^ - v; no elements: 0
  Matrix moved_m;                  // [T, D], that times M
  Matrix cross;                    // [W, T], o M (v^ - v)^T
  std::vector<float> value_cross;  // [T], v M (v^ - v)^T
  std::vector<float> squares;      // [T], (v^ - v) M (v^ - v)^T
};

Matrix Difference(ConstMatrixF to, ConstMatrixF from) {
  Matrix difference(from.rows, from.cols);
  for (int64_t j = 0; j < from.rows; ++j) {
    for (int64_t d = 0; d < from.cols; ++d) difference.view(j, d) = to(j, d) - from(j, d);
  }
  return difference;
}

TierView LookAtTier(const HeadInput& head, size_t h, const HeadView& view, const TierRows& rows) {
  const int64_t window = view.attention.view.rows;
  const int64_t num_tokens = head.keys.rows;
  TierView tier;
  if (rows.keys.data != nullptr) {
    const Matrix moved = Difference(rows.keys, head.keys);
    tier.eps = Matrix(window, num_tokens);
    const ConstMatrixF queries = head.queries[h];
    linalg::GemmNT(static_cast<float>(head.scale), queries.RowRange(queries.rows - window, window),
                   moved.view, false, tier.eps.view);
  }
  if (rows.values.data == nullptr) return tier;
  const int64_t width = head.values.cols;
  tier.moved = Difference(rows.values, head.values);
  tier.moved_m = Matrix(num_tokens, width);
  linalg::GemmNN(tier.moved.view, head.output_grams[h], false, tier.moved_m.view);
  tier.cross = Matrix(window, num_tokens);
  linalg::GemmNT(1.0F, view.output.view, tier.moved_m.view, false, tier.cross.view);
  for (int64_t j = 0; j < num_tokens; ++j) {
    const float* moved_m = tier.moved_m.view.row(j);
    tier.value_cross.push_back(Dot(head.values.row(j), moved_m, width));
    tier.squares.push_back(Dot(tier.moved.view.row(j), moved_m, width));
  }
  return tier;
}

// c^2 |v-o|^2 + 2 c w (v-o) M (v^-v)^T + w^2 |v^-v|^2, `scale` being what v - o is divided by.
double LossOf(const TierView& tier, int64_t token, Weights weights, double square, double cross) {
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
             const Sink& sink) {
  for (int64_t i = 0; i < view.attention.view.rows; ++i) {
    const Dominant& dominant = view.dominants[i];
    for (int64_t j = 0; j < view.attention.view.cols; ++j) {
      const double a = view.attention.view(i, j);
      if (a == 0.0) continue;
      const bool is_dominant = j == dominant.token;
      const double rest = is_dominant ? dominant.rest : 1.0 - a;
      const double eps = tier.eps.data.empty() ? 0.0 : tier.eps.view(i, j);
      Weights weights = first_order ? Weights{a * eps, a} : ExactWeights(a, rest, eps);
      double square = view.squares.view(i, j);
      double cross = tier.squares.empty()
                         ? 0.0
                         : static_cast<double>(tier.value_cross[j]) - tier.cross.view(i, j);
      if (is_dominant) {
        // v - o = rest (v - o of the others)
        const float* change = dominant.change.data();
        weights.change *= rest;
        square = Form(change, head.output_grams[h], change);
        cross =
            tier.squares.empty() ? 0.0 : Dot(change, tier.moved_m.view.row(j), head.values.cols);
      }
      sink.Add(j, LossOf(tier, j, weights, square, cross));
    }
  }
}

void CheckRowsOf(const char* what, ConstMatrixF tier, ConstMatrixF head) {
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
    CheckRowsOf("keys", rows.keys, head.keys);
    CheckRowsOf("values", rows.values, head.values);
  }
}

void Finish(const HeadInput& head, int64_t window, const TierLossOptions& options, MatrixD losses) {
  double weight = options.relative ? 1.0 / head.residual_energy : 1.0;
  if (options.mean) weight /= static_cast<double>(window * std::ssize(head.queries));
  for (int64_t j = 0; j < losses.rows; ++j) {
    for (int64_t t = 0; t < losses.cols; ++t) {
      losses(j, t) *= weight;
      KVC_CHECK(std::isfinite(losses(j, t)), kNumeric,
                "tier losses: token {}: expected a finite loss, got {}", j, losses(j, t));
    }
  }
}

}  // namespace

void ApproximateRows(ConstMatrixF x, const BasisView& basis, int64_t width, MatrixF y) {
  const int64_t full = x.cols;
  KVC_CHECK(basis.forward.rows == full && basis.forward.cols >= width && basis.back.rows == full &&
                basis.back.cols >= width && width >= 0 && y.rows == x.rows && y.cols == full,
            kBadShape, "basis: expected one of {} rows and at least {} columns, got [{}, {}]", full,
            width, basis.forward.rows, basis.forward.cols);
  Matrix centred(x.rows, full);
  for (int64_t j = 0; j < x.rows; ++j) {
    for (int64_t d = 0; d < full; ++d) {
      const float mean = basis.mean == nullptr ? 0.0F : basis.mean[d];
      centred.view(j, d) = x(j, d) - mean;
      y(j, d) = mean;
    }
  }
  if (width == 0 || x.rows == 0) return;
  Matrix prefix(x.rows, width);
  linalg::GemmNN(centred.view, basis.forward.ColRange(0, width), false, prefix.view);
  linalg::GemmNT(1.0F, prefix.view, basis.back.ColRange(0, width), true, y);
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
    const HeadView view = LookFrom(head, h, window);
    AddDropped(head, h, view, {losses, 0, options.mean});
    for (size_t t = 0; t < tiers.size(); ++t) {
      const TierView tier = LookAtTier(head, h, view, tiers[t]);
      const Sink sink = {losses, static_cast<int64_t>(1 + t), options.mean};
      AddTier(head, h, view, tier, options.first_order, sink);
    }
  }
  Finish(head, window, options, losses);
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

void ScaleToScores(std::span<const float> scores, MatrixD losses) {
  for (int64_t j = 0; j < losses.rows; ++j) {
    const double score = scores[j];
    KVC_CHECK(score >= 0.0, kNumeric,
              "tier losses: token {}: expected a score that is a loss, 0 or more, got {}", j,
              score);
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
