#pragma once
// The scorers behind Scorer::Create, one source file each.

#include <memory>

#include "scorers/scorer.h"

namespace kvc::scorers {

// [SnapKV] in the variant of [LUKV]: softmax of the window's queries over all keys, mean over
// window and group, max-pool over tokens.
[[nodiscard]] std::unique_ptr<Scorer> MakeSnapKv(const ScorerOptions& options);
// [ExpectedAttention]: attention that queries at coming positions are expected to pay, from mean
// and covariance of the prompt's queries, times |v|.
[[nodiscard]] std::unique_ptr<Scorer> MakeExpectedAttention(const ScorerOptions& options);
// [KeyDiff]: minus the cosine between a key and the mean of all normalised keys.
[[nodiscard]] std::unique_ptr<Scorer> MakeKeyDiff();
// [Knorm]: minus the norm of the key.
[[nodiscard]] std::unique_ptr<Scorer> MakeKnorm();
// Change of the attention output when the token is dropped, squared, seen by the residual stream:
// for the window's queries, or for those that the prompt has asked, expected again (`prompt`).
[[nodiscard]] std::unique_ptr<Scorer> MakeOutputError(const ScorerOptions& options);
// [StreamingLLM]: the more recent, the higher.
[[nodiscard]] std::unique_ptr<Scorer> MakeStreaming();

}  // namespace kvc::scorers
