#pragma once
// Which cached tokens will be needed: scores of the tokens of one cache group at the end of a
// prompt. The same code ranks tokens in kvc-profile and in the runtime, so that a profile describes
// exactly what runs. Formulas: docs/notation.md and reference in the implementing files.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/cache_spec.h"
#include "core/thread_pool.h"
#include "core/view.h"

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
  double scale = 1.0;                        // logit scale 1/sqrt(D)
  int64_t sinks = 4;
};

struct ScorerOptions {
  int64_t pool = 7;            // snapkv: width of the max-pool over tokens
  int64_t future = 512;        // expected-attention: positions averaged over
  double epsilon = 0.02;       // expected-attention: added before weighting by |v|
  bool use_covariance = true;  // expected-attention
};

class Scorer {
 public:
  // Throws kUnsupported for a scorer that kvc does not have yet, by name; kUsage for options out of
  // range.
  static std::unique_ptr<Scorer> Create(ScorerKind kind, const ScorerOptions& options);
  virtual ~Scorer() = default;
  [[nodiscard]] virtual ScorerKind kind() const = 0;
  // Needs `queries` / `prompt_queries` of HeadInput.
  [[nodiscard]] virtual bool needs_queries() const = 0;
  [[nodiscard]] virtual bool needs_prompt_queries() const = 0;
  // Writes one score for each token, higher = keep: scores [T]. Sinks and window are scored like
  // the others; protecting them is the caller's business. Single-threaded and safe to call from
  // several threads. T = 0 is allowed; more queries than tokens: the last T count. Throws kBadShape
  // when sizes disagree or what the scorer needs is missing, kNumeric when a score is not finite.
  virtual void Score(const HeadInput& head, std::span<float> scores) const = 0;
};

// Mean of the heads' scores over the heads of a group, each head's scores divided by the sum of
// their absolute values first so that no head outweighs another (and negative scores keep their
// order); used where heads share their tokens (kLatent). `head_scores`: one span of T for each
// head; for a single head the scores are copied unchanged. Throws kBadShape.
void CombineHeads(std::span<const std::vector<float>> head_scores, std::span<float> scores);

}  // namespace kvc::scorers
