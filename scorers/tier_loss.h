#pragma once
// Losses of tiers: the cost of keeping only a prefix of a cached token's coordinates (DESIGN
// section 6, [MixedDim]). The same code serves the runtime and kvc-profile.
//
// For a query whose attention to a token is a, and whose output is o, a tier replaces the token's
// key and value (k, v) by (k^, v^). With eps = scale q.(k^ - k) the output moves by exactly
//
//   o' - o = c (v - o) + w (v^ - v),  w = a e^eps / (1 + a (e^eps - 1)),  c = (w - a) / (1 - a),
//
// and by -a/(1-a) (v - o) when the token is dropped (eps = -infinity). To first order:
// o' - o = a (eps (v - o) + (v^ - v)); dropping is exact there too. A loss is the squared norm of
// that after the output projection, (o' - o) M (o' - o)^T.

#include <cstdint>
#include <span>

#include "core/base/view.h"
#include "core/cache/loss_map.h"
#include "core/cache/scorer_spec.h"
#include "scorers/scorer.h"

namespace kvc::scorers {

// The keys and values of a head as a tier keeps them, in the space of the head. A view without data
// says that the tier keeps them unchanged.
struct TierRows {
  ConstMatrixF keys;    // [T, D_k]
  ConstMatrixF values;  // [T, D]
};

struct TierLossOptions {
  bool first_order = false;
  bool mean = true;      // over the window's queries and the group's heads; else the maximum
  bool relative = true;  // to head.residual_energy
};

// The options that go with a scorer: those of output-error say how it is reduced; other scores take
// the mean.
[[nodiscard]] TierLossOptions TierLossOptionsOf(const ScorerSpec& scorer);

// Writes losses [T, 1 + n]: column 0 is the loss of dropping a token, column 1 + t that of keeping
// it in tiers[t]. Reads keys, values, queries, output_grams, residual_energy and scale of `head`. A
// token that no query sees has no loss. Single-threaded; may be called from several threads. Throws
// kBadShape when sizes disagree or something is missing, kNumeric when a loss is not finite.
void TierLosses(const HeadInput& head,
                std::span<const TierRows> tiers,
                const TierLossOptions& options,
                MatrixD losses);

// The last part of TierLosses, for sums that were found elsewhere: makes losses [T, 1 + n] of sums,
// or largest losses, over window and heads, in place. Reads heads, window and residual_energy of
// `sums`. Throws kNumeric when a loss is not finite.
void ScaleLosses(const TokenSums& sums, const TierLossOptions& options, MatrixD losses);

// True when the scorer's scores are losses of dropped tokens (attention or output error), which can
// be added up. Those of KeyDiff, Knorm and streaming are ranks.
[[nodiscard]] bool ScoresAreLosses(ScorerKind kind);

// Scales losses [T, 1 + n] in place to the scores of a scorer: dropping token i costs f(s_i), `map`
// of its score, and a tier costs the share f(s_i) L_i(t) / L_i(0) of it that the formula above
// finds. With output-error:reduce=mean,pool=1 and the identity these are the losses L themselves;
// with another score the tiers still follow its order of the tokens. Where L_i(0) is 0, no query
// tells the tiers apart, and each costs f(s_i). A score of +infinity (never to be dropped) gives
// +infinity. Throws kNumeric for a negative score.
void ScaleToScores(std::span<const float> scores, const LossMapView& map, MatrixD losses);

}  // namespace kvc::scorers
