#pragma once
// Losses of tokens as a few queries see them: how an attention output changes when a token is
// dropped or replaced. A matrix has a row for each query and a column for each token; a is the
// attention, o a query's output, and norms and products are those of the output matrix M of the
// query head (scorers/output_change.h, scorers/tier_loss.h). Single-threaded; in floats.

#include <cstdint>
#include <span>

#include "core/base/view.h"

namespace kvc::kernels {

// How the losses that the queries see become one. A NaN stays one.
enum class LossReduction { kSum, kMax };

// (a/(1-a))^2 max(0, |v|^2 - 2 o M v^T + |o|^2) of tokens that are dropped.
struct DroppedTokens {
  ConstMatrixF attention;        // [W, n], below 1
  ConstMatrixF crosses;          // [W, n], o M v^T
  std::span<const float> norms;  // [n], |v|^2
  std::span<const float> owns;   // [W], |o|^2
};
// Turns sums [n] into sum or maximum of themselves and the losses of all queries.
void ReduceDropped(const DroppedTokens& tokens, LossReduction reduction, std::span<float> sums);

// Writes w = a e^eps / (1 + a (e^eps - 1)) to values and c = (w - a) / (1 - a) to changes, for
// attention of at most 1/2; zeros where it is next to 0. First order: w = a, c = a eps. All [W, n];
// eps without data: 0.
struct ReplacementWeights {
  MatrixF changes;
  MatrixF values;
};
void WeighReplaced(ConstMatrixF attention,
                   ConstMatrixF eps,
                   bool first_order,
                   const ReplacementWeights& weights);

// max(0, c^2 |v-o|^2 + 2 c w (v-o) M (v^-v)^T + w^2 |v^-v|^2) of tokens that are replaced. Without
// moved norms v^ is v.
struct ReplacedTokens {
  ConstMatrixF changes;                // [W, n], c
  ConstMatrixF values;                 // [W, n], w
  ConstMatrixF squares;                // [W, n], |v-o|^2
  ConstMatrixF output_cross;           // [W, n], o M (v^-v)^T
  std::span<const float> value_cross;  // [n], v M (v^-v)^T
  std::span<const float> moved;        // [n], |v^-v|^2
};
// Likewise.
void ReduceReplaced(const ReplacedTokens& tokens, LossReduction reduction, std::span<float> sums);

}  // namespace kvc::kernels
