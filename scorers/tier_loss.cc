#include "scorers/tier_loss.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/base/error.h"
#include "kernels/output_rows.h"
#include "kernels/row_product.h"
#include "scorers/checks.h"
#include "scorers/output_change.h"
#include "scorers/window_attention.h"

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

// Tokens that are worked on at once: what all tiers make of them stays in the cache.
constexpr int64_t kTile = 256;

// What tiers add to rows. Tiers that keep keys or values alike share their rows, and name them by
// number; kUnmoved: they keep them unchanged.
constexpr int64_t kUnmoved = -1;
struct MovedRows {
  std::vector<FloatMatrix> moved;  // [T, D], x^ - x
  std::vector<int64_t> of_tier;    // [n]

  MovedRows(std::span<const TierRows> tiers,
            ConstMatrixF TierRows::*rows,
            ConstMatrixF head,
            kernels::InputRounding rounding) {
    std::vector<const float*> known;
    for (const TierRows& tier : tiers) {
      const ConstMatrixF to = tier.*rows;
      const auto found = std::ranges::find(known, to.data);
      of_tier.push_back(to.data == nullptr ? kUnmoved : found - known.begin());
      if (to.data == nullptr || found != known.end()) continue;
      known.push_back(to.data);
      const FloatMatrix& x = moved.emplace_back(head.rows, head.cols);
      for (int64_t j = 0; j < head.rows; ++j) {
        for (int64_t d = 0; d < head.cols; ++d) x.view(j, d) = to(j, d) - head(j, d);
      }
      kernels::RoundRows(rounding, x.view);
    }
  }
};

// The rows that tiers replace, and where their losses are added up.
class TierSums {
 public:
  TierSums(const HeadInput& head,
           std::span<const TierRows> tiers,
           const TierLossOptions& options,
           int64_t window)
      : head_(head),
        options_(options),
        window_(window),
        keys_(tiers, &TierRows::keys, head.keys, head.rounding),
        values_(tiers, &TierRows::values, head.values, head.rounding),
        key_tiles_(keys_.moved.size() + 1),
        value_tiles_(values_.moved.size()),
        sums_(1 + std::ssize(tiers), head.keys.rows) {
    for (KeyTile& tile : key_tiles_) tile = KeyTile(window);
    for (ValueTile& tile : value_tiles_) tile = ValueTile(window, head.values.cols);
  }

  // Adds what the queries of head h lose. `change` has found what they see.
  void AddHead(size_t h, OutputChange& change) {
    change.Reduce(Reduction(), Sums(0, 0, head_.keys.rows));
    const ConstMatrixF squares = change.Squares();
    const ConstMatrixF queries = ScaledQueries(h);
    for (int64_t first = 0; first < head_.keys.rows; first += kTile) {
      const int64_t count = std::min(kTile, head_.keys.rows - first);
      FillKeys(queries, change, first, count);
      FillValues(h, change.outputs(), first, count);
      for (size_t t = 0; t < keys_.of_tier.size(); ++t) {
        AddTier(t, change, squares.ColRange(first, count), first, count);
      }
    }
  }

  // The sums [T, 1 + n].
  void Write(MatrixD losses) const {
    for (int64_t j = 0; j < losses.rows; ++j) {
      for (int64_t t = 0; t < losses.cols; ++t) losses(j, t) = sums_.view(t, j);
    }
  }

 private:
  // What replaced keys make of a tile.
  struct KeyTile {
    FloatMatrix eps, changes, values;  // [W, kTile], eps, c, w

    KeyTile() = default;
    explicit KeyTile(int64_t window)
        : eps(window, kTile), changes(window, kTile), values(window, kTile) {}
  };
  // What replaced values make of it.
  struct ValueTile {
    FloatMatrix moved_m;             // [kTile, D], (v^ - v) M
    FloatMatrix cross;               // [W, kTile], o M (v^ - v)^T
    std::vector<float> value_cross;  // [kTile], v M (v^ - v)^T
    std::vector<float> squares;      // [kTile], (v^ - v) M (v^ - v)^T

    ValueTile() = default;
    ValueTile(int64_t window, int64_t width)
        : moved_m(kTile, width), cross(window, kTile), value_cross(kTile), squares(kTile) {}
  };

  [[nodiscard]] kernels::LossReduction Reduction() const {
    return options_.mean ? kernels::LossReduction::kSum : kernels::LossReduction::kMax;
  }
  [[nodiscard]] std::span<float> Sums(int64_t column, int64_t first, int64_t count) const {
    return {sums_.view.row(column) + first, static_cast<size_t>(count)};
  }
  // The tile of a tier's keys; the last one is that of unmoved keys.
  [[nodiscard]] KeyTile& KeysOf(int64_t moved) {
    return key_tiles_[moved == kUnmoved ? key_tiles_.size() - 1 : static_cast<size_t>(moved)];
  }

  ConstMatrixF ScaledQueries(size_t h) {
    const ConstMatrixF queries = head_.queries[h];
    queries_ = FloatMatrix(window_, queries.cols);
    for (int64_t i = 0; i < window_; ++i) {
      const float* row = queries.row(queries.rows - window_ + i);
      for (int64_t d = 0; d < queries.cols; ++d) {
        queries_.view(i, d) = static_cast<float>(head_.scale) * row[d];
      }
    }
    return queries_.view;
  }

  void FillKeys(ConstMatrixF queries, const OutputChange& change, int64_t first, int64_t count) {
    const ConstMatrixF attention = change.attention(window_).ColRange(first, count);
    for (size_t k = 0; k < key_tiles_.size(); ++k) {
      const KeyTile& tile = key_tiles_[k];
      ConstMatrixF eps;
      if (k < keys_.moved.size()) {
        const MatrixF moved = keys_.moved[k].view.RowRange(first, count);
        kernels::MultiplyRows(queries, moved, head_.rounding, tile.eps.view.ColRange(0, count));
        eps = tile.eps.view.ColRange(0, count);
      }
      kernels::WeighReplaced(
          attention, eps, options_.first_order,
          {tile.changes.view.ColRange(0, count), tile.values.view.ColRange(0, count)});
    }
  }

  void FillValues(size_t h, ConstMatrixF outputs, int64_t first, int64_t count) {
    const int64_t width = head_.values.cols;
    for (size_t v = 0; v < value_tiles_.size(); ++v) {
      ValueTile& tile = value_tiles_[v];
      const ConstMatrixF moved = values_.moved[v].view.RowRange(first, count);
      const MatrixF moved_m = tile.moved_m.view.RowRange(0, count);
      kernels::MultiplyRows(moved, head_.output_grams[h], head_.rounding, moved_m);
      for (int64_t j = 0; j < count; ++j) {
        tile.squares[j] = Dot(moved.row(j), moved_m.row(j), width);
      }
      // v and o meet the same rounded rows, so that what rounding changes shrinks with v - o.
      kernels::RoundRows(head_.rounding, moved_m);
      for (int64_t j = 0; j < count; ++j) {
        tile.value_cross[j] = Dot(head_.values.row(first + j), moved_m.row(j), width);
      }
      kernels::MultiplyRows(outputs, moved_m, head_.rounding, tile.cross.view.ColRange(0, count));
    }
  }

  void AddTier(
      size_t t, const OutputChange& change, ConstMatrixF squares, int64_t first, int64_t count) {
    const KeyTile& keys = KeysOf(keys_.of_tier[t]);
    const int64_t moved = values_.of_tier[t];
    kernels::ReplacedTokens tokens;
    tokens.changes = keys.changes.view.ColRange(0, count);
    tokens.values = keys.values.view.ColRange(0, count);
    tokens.squares = squares;
    const ValueTile* values = nullptr;
    if (moved != kUnmoved) {
      values = &value_tiles_[static_cast<size_t>(moved)];
      tokens.output_cross = values->cross.view.ColRange(0, count);
      tokens.value_cross = std::span(values->value_cross).first(static_cast<size_t>(count));
      tokens.moved = std::span(values->squares).first(static_cast<size_t>(count));
    }
    const std::span<float> sums = Sums(static_cast<int64_t>(1 + t), first, count);
    kernels::ReduceReplaced(tokens, Reduction(), sums);
    for (int64_t i = 0; i < window_; ++i) {
      const int64_t token = change.dominants()[i].token - first;
      if (token < 0 || token >= count) continue;
      const bool is_moved = keys_.of_tier[t] != kUnmoved;
      const double loss =
          DominantLoss(change, i, is_moved ? keys.eps.view(i, token) : 0.0F, values, token);
      const auto sum = static_cast<double>(sums[token]);
      // A maximum would hide a NaN.
      sums[token] =
          static_cast<float>(options_.mean || std::isnan(loss) ? sum + loss : std::max(sum, loss));
    }
  }

  // c^2 |v-o|^2 + 2 c w (v-o) M (v^-v)^T + w^2 |v^-v|^2 of the token that dominates query i, with
  // v - o = rest (v - o of the others).
  [[nodiscard]] double DominantLoss(const OutputChange& change,
                                    int64_t i,
                                    double eps,
                                    const ValueTile* values,
                                    int64_t token) const {
    const OutputChange::Dominant& dominant = change.dominants()[i];
    const double a = dominant.attention;
    const double rest = std::max(dominant.rest, kLeastRest);
    ReplacementWeights weights =
        options_.first_order ? ReplacementWeights{a * eps, a} : ExactWeights(a, rest, eps);
    weights.change *= rest;
    double loss = weights.change * weights.change * dominant.square;
    if (values != nullptr) {
      const double cross =
          Dot(change.dominant_changes().row(i), values->moved_m.view.row(token), head_.values.cols);
      loss += 2.0 * weights.change * weights.value * cross +
              weights.value * weights.value * static_cast<double>(values->squares[token]);
    }
    return loss < 0.0 ? 0.0 : loss;
  }

  const HeadInput& head_;
  const TierLossOptions& options_;
  int64_t window_;
  MovedRows keys_, values_;
  std::vector<KeyTile> key_tiles_;
  std::vector<ValueTile> value_tiles_;
  FloatMatrix queries_;  // [W, D_k], scaled
  FloatMatrix sums_;     // [1 + n, T]
};

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
  const int64_t num_tokens = head.keys.rows;
  if (num_tokens == 0) return;
  const int64_t window = std::min(head.queries.front().rows, num_tokens);  // W
  OutputChange change(window, head.values, head.rounding);
  TierSums sums(head, tiers, options, window);
  for (size_t h = 0; h < head.queries.size(); ++h) {
    const ConstMatrixF queries = head.queries[h];
    change.SetGram(head.output_grams[h]);
    WindowAttention(queries.RowRange(queries.rows - window, window), head,
                    change.attention(window));
    change.Find(window);
    sums.AddHead(h, change);
  }
  sums.Write(losses);
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
