#pragma once
// What it costs to keep a cached token in a tier, a prefix of its coordinates (DESIGN section 6,
// docs/bibliography.md [MixedDim]). The same code serves the runtime and kvc-profile.
//
// For a query whose attention to a token is a, and whose output is o, a tier replaces the token's
// key and value (k, v) by (k^, v^). With eps = scale q.(k^ - k) the output moves by exactly
//
//   o' - o = c (v - o) + w (v^ - v),  w = a e^eps / (1 + a (e^eps - 1)),  c = (w - a) / (1 - a),
//
// and by -a/(1-a) (v - o) when the token is dropped (eps = -infinity). To first order:
// o' - o = a (eps (v - o) + (v^ - v)); dropping is exact there too. A loss is the squared norm of
// that behind the output projection, (o' - o) M (o' - o)^T.

#include <cstdint>
#include <span>

#include "core/base/view.h"
#include "core/cache/scorer_spec.h"
#include "scorers/scorer.h"

namespace kvc::scorers {

// The keys and values that a tier leaves of a head's, in the space of the head's. A view without
// data: the tier keeps them as they are.
struct TierRows {
  ConstMatrixF keys;    // [T, D_k]
  ConstMatrixF values;  // [T, D]
};

struct TierLossOptions {
  bool first_order = false;
  bool mean = true;      // over the window's queries and the group's heads; else the maximum
  bool relative = true;  // to head.residual_energy
};

// The options that go with a scorer: an output error says itself how it is reduced, other scores
// take the mean.
[[nodiscard]] TierLossOptions TierLossOptionsOf(const ScorerSpec& scorer);

// losses [T, 1 + n]: column 0 of dropping each token, column 1 + t of keeping tiers[t] of it. Reads
// keys, values, queries, output_grams, residual_energy and scale of `head`. A token that no query
// sees has no loss. Single-threaded and safe to call from several threads. Throws kBadShape when
// sizes disagree or something is missing, kNumeric when a loss is not finite.
void TierLosses(const HeadInput& head,
                std::span<const TierRows> tiers,
                const TierLossOptions& options,
                MatrixD losses);

// Whether the scorer's scores are amounts that a dropped token costs (attention or output error),
// so that they can be added up. KeyDiff's, Knorm's and streaming's are ranks.
[[nodiscard]] bool ScoresAreLosses(ScorerKind kind);

// Combines a scorer with tiers: dropping token i costs its score s_i, and a tier the share of it
// that the formula above finds, s_i L_i(t) / L_i(0). With output-error:reduce=mean,pool=1 these are
// the losses L themselves; with another score the tiers still follow its order of the tokens. Where
// L_i(0) is 0, no query tells the tiers apart, and each costs s_i. losses [T, 1 + n] in place.
// Scores must not be negative: throws kNumeric. +infinity (never to be dropped) gives +infinity.
void ScaleToScores(std::span<const float> scores, MatrixD losses);

}  // namespace kvc::scorers
