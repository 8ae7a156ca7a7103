#pragma once
// The makers of the scorers, between which Scorer::Create chooses. Each has a source file of its
// own. They throw kUsage for options out of range.

#include <memory>

#include "scorers/scorer.h"

namespace kvc::scorers {

// [SnapKV] in the variant of [LUKV]: the attention of the window's queries to all keys, averaged
// over window and group, max-pooled over tokens.
[[nodiscard]] std::unique_ptr<Scorer> MakeSnapKv(const ScorerOptions& options);
// [ExpectedAttention]: the attention that queries at coming positions are expected to pay, from the
// mean and covariance of the prompt's queries, times |v|.
[[nodiscard]] std::unique_ptr<Scorer> MakeExpectedAttention(const ScorerOptions& options);
// [KeyDiff]: minus the cosine between a key and the mean of all normalised keys.
[[nodiscard]] std::unique_ptr<Scorer> MakeKeyDiff();
// [Knorm]: minus the norm of the key.
[[nodiscard]] std::unique_ptr<Scorer> MakeKnorm();
// The squared change of the attention output, as the residual stream sees it, when the token is
// dropped: for the window's queries, or with `prompt` for queries of the prompt, which are expected
// to come again.
[[nodiscard]] std::unique_ptr<Scorer> MakeOutputError(const ScorerOptions& options);
// [StreamingLLM]: the position of the token, so that recent tokens score higher.
[[nodiscard]] std::unique_ptr<Scorer> MakeStreaming();

}  // namespace kvc::scorers
