#pragma once
// Decode attention over rows in codes with steps (x8, x4, x2 and mixtures, core/base/row_format.h)
// by integer dot products, run by run of a row's columns, compiled for each instruction set.
// Internal to kernels/cpu.
//
// Scores: queries times steps become whole numbers, n_i = round(q_i s_i / u), with one unit u =
// max_i |q_i s_i| / N for each query and run, so that a run adds u sum_i n_i (c_i - z + 1/2), z =
// 2^(b-1), to a token's score. N = 127, one digit of int8, for codes of 4 and 2 bits, whose own
// rounding is coarser; two digits to the base 255, N = 127 * 255 + 127, for codes of 8 bits: there
// one digit would err more than the codes do (docs/experiments/2026-11-rows-in-few-bits.md).
// Values: a tile's probabilities become whole numbers P_t of 15 bits of their largest, two digits
// of eight bits each; sum_t P_t c_ti is exact, and folds into the output by the column's step. The
// softmax's sum becomes that of the P_t, so that weights still sum to one.
//
// All sums are of integers: every instruction set has the same.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "core/base/row_format.h"
#include "kernels/attention.h"
#include "kernels/cpu/decode_state.h"

namespace kvc::kernels {

// A digit of a head's queries in whole numbers, for one run of the columns of its keys.
struct RunQueries {
  const int8_t* factors = nullptr;  // n_i, in the order in which the codes meet them
  float unit = 0.0F;                // u, times 255 for the upper of two digits
  int32_t offset = 0;               // (2 z - 1) sum_i n_i
};

// The kernels of one instruction set. Scratch is 64-byte aligned, of as many floats as the function
// before says.
struct CodeKernels {
  int64_t (*query_floats)(const CodeRuns& runs, int64_t queries);
  // Returns [runs, digits, queries], upper digits first, which lie in `scratch`.
  const RunQueries* (*quantize_queries)(const CodeRuns& runs,
                                        const HeadState& state,
                                        float* scratch);
  // Writes state.scores of rows first .. first + count - 1, each at its own number.
  void (*score)(const RowBlock& keys,
                const CodeRuns& runs,
                const RunQueries* queries,
                int64_t first,
                int64_t count,
                const HeadState& state);
  int64_t (*digit_floats)(int64_t queries);
  // Adds the rows' values to every query's output, which shrinks first.
  void (*add)(const RowBlock& values,
              const CodeRuns& runs,
              int64_t first,
              int64_t count,
              Slots slots,
              const HeadState& state,
              const float* shrink,
              float* scratch);
};

// The largest P_t: two digits, of which the lower one is from -128 to 127.
inline constexpr float kLargestDigits = 127 * 256 + 127;

// Digits of a query's whole numbers.
[[nodiscard]] constexpr int64_t QueryDigits(int32_t bits) { return bits == 8 ? 2 : 1; }
inline constexpr float kQueryBase = 255.0F;
// The largest n_i.
[[nodiscard]] constexpr float LargestFactor(int32_t bits) {
  return QueryDigits(bits) == 2 ? 127.0F * kQueryBase + 127.0F : 127.0F;
}

// The unit of a run's query, and one over it; NaN and zero where a number is not finite.
struct QueryUnit {
  float unit = 0.0F;
  float inverse = 0.0F;
};
[[nodiscard]] inline QueryUnit UnitOf(float largest, bool finite, int32_t bits) {
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  const float most = LargestFactor(bits);
  return {largest / most, largest > 0.0F ? most / largest : 0.0F};
}

// Those of the instruction set in use.
[[nodiscard]] const CodeKernels& CodeKernelsInUse();

}  // namespace kvc::kernels
