#pragma once
// The attention of the window's queries, and the pooling of scores over tokens.

#include <cstdint>
#include <span>

#include "scorers/scorer.h"

namespace kvc::scorers {

// Writes A = softmax(scale Q K^T) to attention [W, T] for queries [W, D_k] at the last W positions.
// It is causal inside the window: 0 where a query does not see a token.
void WindowAttention(ConstMatrixF queries, const HeadInput& head, MatrixF attention);

// s_j = max of x over j - pool/2 .. j + pool/2, as far as it exists ("same" padding). The last
// `window` tokens and those before them are pooled apart, because the window is always kept and
// takes no part in the comparison [SnapKV]. x, s [T] must not overlap.
void PoolWindowApart(std::span<const float> x, int64_t window, int64_t pool, std::span<float> s);

// The width options.pool, or the scorer's default for 0. Throws kUsage for an even width.
[[nodiscard]] int64_t PoolWidth(ScorerKind kind, const ScorerOptions& options);

}  // namespace kvc::scorers
