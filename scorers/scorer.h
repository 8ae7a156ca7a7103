#pragma once
// Scorers of cached tokens: estimates, at the end of a prompt, of how much each token of a cache
// group will be needed. The same code ranks tokens in kvc-profile and in the runtime, so that a
// profile describes exactly what runs. Formulas and references stand in the implementing files, in
// the letters of docs/notation.md.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/view.h"
#include "core/cache/scorer_spec.h"
#include "kernels/rounding.h"
#include "scorers/token_sums.h"

namespace kvc::scorers {

// The input of a scorer: one kv head g of a cache group. q and k stand as they enter the dot
// product (after biases, norms and rotation). `queries` are those of the last W positions T-W ..
// T-1.
//
// In a layer with a window (CacheGeometry::attention_windows) the T tokens are those that are still
// in it, and all queries are theirs: what no later query sees gets no score and takes no part in a
// softmax, a mean or a pool, and a query outside a token's window contributes nothing to it.
struct HeadInput {
  ConstMatrixF keys;                         // [T, D_k]
  ConstMatrixF values;                       // [T, D]
  std::vector<ConstMatrixF> queries;         // for each query head of the group: [W, D_k]
  std::vector<ConstMatrixF> prompt_queries;  // likewise [T', D_k], BEFORE rotation; only for
                                             // scorers with needs_prompt_queries()
  // Inverse frequencies [r/2] of the first r = rotary_width dimensions (0: all D_k); empty: no
  // rotation. Rotated rows are rope_factor times as long as before (RopeConfig::attention_factor).
  std::span<const double> rope_frequencies;
  int64_t rotary_width = 0;
  double rope_factor = 1.0;
  // Likewise M_h = W_O^hT W_O^h [D, D], W_O^h [E, D] being the head's columns of the output
  // projection, so that |x W_O^hT|^2 = x M_h x^T; only for scorers with needs_output().
  std::vector<ConstMatrixF> output_grams;
  // Mean over `queries` of the squared norm of the residual stream that the layer reads; likewise.
  double residual_energy = 1.0;
  double scale = 1.0;  // logit scale 1/sqrt(D)
  int64_t sinks = 4;
  // Of the first key, where `prompt_queries` are turned to the positions behind the last one.
  int64_t first_position = 0;
  // kToBF16, where keys and values are stored in bf16 or coarser: what they are multiplied with is
  // rounded to bf16, as in the attention of prompts.
  kernels::InputRounding rounding = kernels::InputRounding::kNone;
};

// A way to score tokens. Does not change: several threads may use one.
class Scorer {
 public:
  // Makes the scorer of a spec. Throws kUsage for options out of range.
  static std::unique_ptr<Scorer> Create(const ScorerSpec& spec);
  virtual ~Scorer() = default;
  [[nodiscard]] virtual ScorerKind kind() const = 0;
  // Say which fields of HeadInput the scorer reads in addition to keys and values: `queries`,
  // `prompt_queries`, `output_grams` with `residual_energy`.
  [[nodiscard]] virtual bool needs_queries() const { return false; }
  [[nodiscard]] virtual bool needs_prompt_queries() const { return false; }
  [[nodiscard]] virtual bool needs_output() const { return false; }
  // True when scores of different heads and layers are losses in one unit, which can be compared
  // and added.
  [[nodiscard]] virtual bool comparable() const { return false; }
  // Writes a score for each token to scores [T]; tokens with higher scores are kept. Sinks and
  // window are scored like the others: the caller protects them. T may be 0. Where there are more
  // queries than tokens, the last T count. Single-threaded. Throws kBadShape when sizes disagree or
  // a field that the scorer needs is missing, kNumeric when a score is not finite.
  virtual void Score(const HeadInput& head, std::span<float> scores) const = 0;
  // The last part of Score, for sums that were found elsewhere: scales, pools and shares out.
  // scores [T] may be 0 long. Throws kBadShape when sizes disagree, kNumeric when a sum is not
  // finite.
  virtual void Finish(const TokenSums& sums, std::span<float> scores) const = 0;
};

// Combines the scores of several heads that share their tokens (kLatent). Scores of a comparable
// scorer are added. Others are averaged, after each head's scores are divided by the sum of their
// absolute values, so that no head outweighs another and negative scores keep their order. The
// scores of a single head are copied unchanged. head_scores [heads][T], scores [T]. Throws
// kBadShape.
void CombineHeads(const Scorer& scorer,
                  std::span<const std::vector<float>> head_scores,
                  std::span<float> scores);

}  // namespace kvc::scorers
