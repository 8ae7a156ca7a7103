#pragma once
// What every scorer checks, and the row arithmetic that they share.

#include <cstdint>
#include <span>

#include "scorers/scorer.h"

namespace kvc::scorers {

// Throws kBadShape, naming the scorer, when keys, values, queries and scores do not fit together or
// something that the scorer needs is missing.
void CheckInput(const Scorer& scorer, const HeadInput& head, std::span<const float> scores);

// Throws kBadShape, naming the scorer, when there are frequencies of the rotation, but not one for
// each pair of a key's dimensions.
void CheckFrequencies(const Scorer& scorer, const HeadInput& head);

// Throws kNumeric, naming the scorer and the first token whose score is NaN or infinite.
void CheckFinite(const Scorer& scorer, std::span<const float> scores);

// a . b over `count` elements, in float with a fixed order of additions that vectorises.
[[nodiscard]] float Dot(const float* a, const float* b, int64_t count);
// |a|
[[nodiscard]] float Norm(const float* a, int64_t count);

}  // namespace kvc::scorers
