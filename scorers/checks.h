#pragma once
// Checks and row arithmetic that the scorers share.

#include <cstdint>
#include <span>

#include "scorers/scorer.h"

namespace kvc::scorers {

// Throws kBadShape, naming the scorer, when keys, values, queries and scores do not fit together or
// a field that the scorer needs is missing.
void CheckInput(const Scorer& scorer, const HeadInput& head, std::span<const float> scores);

// Throws kBadShape, naming the scorer, when there are rope frequencies, but not one for each pair
// of a key's dimensions.
void CheckFrequencies(const Scorer& scorer, const HeadInput& head);

// Throws kBadShape, naming the scorer, unless there is a sum for each score; kNumeric for one that
// is NaN or infinite.
void CheckSums(const Scorer& scorer, std::span<const float> sums, std::span<const float> scores);

// Throws kNumeric for a score that is NaN or infinite, naming the scorer and the first such token.
void CheckFinite(const Scorer& scorer, std::span<const float> scores);

// The product a . b over `count` elements, in float, in a fixed order of additions that vectorises.
[[nodiscard]] float Dot(const float* a, const float* b, int64_t count);
// The Euclidean norm |a|.
[[nodiscard]] float Norm(const float* a, int64_t count);

}  // namespace kvc::scorers
