#pragma once
// Queries of a prompt that are expected to come again: which of them `output-error` takes, and the
// positions to which it turns them.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace kvc::scorers {

// The first of a prompt's `rows` queries that counts: those of the sinks are left out where there
// are others.
[[nodiscard]] inline int64_t SkippedSinks(int64_t rows, int64_t sinks) {
  return rows > sinks ? sinks : 0;
}

// The number of queries that are taken of `rows`, at most `prompt`.
[[nodiscard]] inline int64_t ExpectedCount(int64_t rows, int64_t sinks, int64_t prompt) {
  return std::min(prompt, rows - SkippedSinks(rows, sinks));
}

// The row of the i-th of `count` queries: they are evenly spaced.
[[nodiscard]] inline int64_t ExpectedRow(int64_t i, int64_t count, int64_t rows, int64_t sinks) {
  const int64_t skipped = SkippedSinks(rows, sinks);
  return skipped + (rows - skipped) * i / count;
}

// The position of the i-th query: one of the `future` behind the tokens.
[[nodiscard]] inline int64_t ExpectedPosition(int64_t i, int64_t tokens, int64_t future) {
  // The golden ratio's fraction: its multiples scatter evenly over [0, 1), however many they are.
  constexpr double kScatter = 0.6180339887498949;
  const double scattered = std::fmod(static_cast<double>(i) * kScatter, 1.0);
  return tokens + static_cast<int64_t>(scattered * static_cast<double>(future));
}

}  // namespace kvc::scorers
