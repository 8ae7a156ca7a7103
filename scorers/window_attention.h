#pragma once
// What scorers by the window's queries share.

#include <cstdint>
#include <span>

#include "scorers/scorer.h"

namespace kvc::scorers {

// A = softmax(scale Q K^T) of queries [W, D_k] that stand at the last W positions over all keys,
// causal inside the window: attention [W, T], 0 where a query does not see a token.
void WindowAttention(ConstMatrixF queries, const HeadInput& head, MatrixF attention);

// s_j = max of x over j - pool/2 .. j + pool/2, inside the range ("same" padding). The tokens
// before the window's `window` are pooled among themselves, as where the window is always kept and
// leaves the comparison [SnapKV]. x, s [T]; not the same memory.
void PoolApart(std::span<const float> x, int64_t window, int64_t pool, std::span<float> s);

// options.pool, or the scorer's default for 0. Throws kUsage for an even width.
[[nodiscard]] int64_t PoolWidth(ScorerKind kind, const ScorerOptions& options);

}  // namespace kvc::scorers
