#pragma once
// Which cached tokens will be needed: scores of the tokens of one cache group at the end of a
// prompt. The same code ranks tokens in kvc-profile and in the runtime, so that a profile describes
// exactly what runs. Formulas: docs/notation.md and reference in the implementing files.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/base/view.h"
#include "core/cache/scorer_spec.h"

namespace kvc::scorers {

// What a scorer sees of one kv head g. q and k as they enter the dot product (after rotation, norms
// and biases); `queries` are the last W positions T-W .. T-1 of the sequence.
struct HeadInput {
  ConstMatrixF keys;                         // [T, D_k]
  ConstMatrixF values;                       // [T, D]
  std::vector<ConstMatrixF> queries;         // for each query head of the group: [W, D_k]
  std::vector<ConstMatrixF> prompt_queries;  // likewise [T', D_k], BEFORE rotation; only for
                                             // scorers with needs_prompt_queries()
  std::span<const double> rope_frequencies;  // [D_k/2] inverse frequencies; empty: no rotation
  // Likewise M_h = W_O^hT W_O^h [D, D], W_O^h [E, D] being the head's columns of the output
  // projection, so that |x W_O^hT|^2 = x M_h x^T; only for scorers with needs_output().
  std::vector<ConstMatrixF> output_grams;
  // Mean over `queries` of the squared norm of the residual stream that the layer reads; likewise.
  double residual_energy = 1.0;
  double scale = 1.0;  // logit scale 1/sqrt(D)
  int64_t sinks = 4;
};

class Scorer {
 public:
  // Throws kUsage for options out of range.
  static std::unique_ptr<Scorer> Create(const ScorerSpec& spec);
  virtual ~Scorer() = default;
  [[nodiscard]] virtual ScorerKind kind() const = 0;
  // Needs `queries` / `prompt_queries` / `output_grams` and `residual_energy` of HeadInput.
  [[nodiscard]] virtual bool needs_queries() const { return false; }
  [[nodiscard]] virtual bool needs_prompt_queries() const { return false; }
  [[nodiscard]] virtual bool needs_output() const { return false; }
  // Scores of different heads and layers are losses in one unit, which can be compared and added.
  [[nodiscard]] virtual bool comparable() const { return false; }
  // Writes one score for each token, higher = keep: scores [T]. Sinks and window are scored like
  // the others; protecting them is the caller's business. Single-threaded and safe to call from
  // several threads. T = 0 is allowed; more queries than tokens: the last T count. Throws kBadShape
  // when sizes disagree or what the scorer needs is missing, kNumeric when a score is not finite.
  virtual void Score(const HeadInput& head, std::span<float> scores) const = 0;
};

// One score for tokens that several heads share (kLatent): the sum of the heads' scores where the
// scorer gives them in one unit; else their mean, each head's scores divided by the sum of their
// absolute values first so that no head outweighs another (and negative scores keep their order).
// `head_scores`: one span of T for each head; for a single head the scores are copied unchanged.
// Throws kBadShape.
void CombineHeads(const Scorer& scorer,
                  std::span<const std::vector<float>> head_scores,
                  std::span<float> scores);

}  // namespace kvc::scorers
