#pragma once
// Decode attention over rows in codes with steps (x8, x4, x2 and mixtures, core/base/row_format.h)
// by integer dot products, run by run of a row's columns, compiled for each instruction set.
// Internal to kernels/cpu.
//
// Scores: queries times steps become int8, n_i = round(q_i s_i / u), with one unit u = max_i |q_i
// s_i| / 127 for each query and run, so that a run adds u sum_i n_i (c_i - z + 1/2), z = 2^(b-1),
// to a token's score. Values: a tile's probabilities become whole numbers P_t of 15 bits of their
// largest, two digits of eight bits each; sum_t P_t c_ti is exact, and folds into the output by the
// column's step. The softmax's sum becomes that of the P_t, so that weights still sum to one.
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

// A head's queries in whole numbers, for one run of the columns of its keys.
struct RunQueries {
  const int8_t* factors = nullptr;  // n_i, in the order in which the codes meet them
  float unit = 0.0F;                // u
  int32_t offset = 0;               // (2 z - 1) sum_i n_i
};

// The kernels of one instruction set. Scratch is 64-byte aligned, of as many floats as the function
// before says.
struct CodeKernels {
  int64_t (*query_floats)(const CodeRuns& runs, int64_t queries);
  // Returns [runs, queries], which lie in `scratch`.
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

// The unit of a run's query, and one over it; NaN and zero where a number is not finite.
struct QueryUnit {
  float unit = 0.0F;
  float inverse = 0.0F;
};
[[nodiscard]] inline QueryUnit UnitOf(const float* query, const float* steps, int64_t width) {
  float largest = 0.0F;
  bool finite = true;
  for (int64_t i = 0; i < width; ++i) {
    const float x = std::abs(query[i] * steps[i]);
    largest = std::max(largest, x);
    finite = finite && x <= std::numeric_limits<float>::max();
  }
  if (!finite) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  return {largest / 127.0F, largest > 0.0F ? 127.0F / largest : 0.0F};
}
[[nodiscard]] inline int8_t FactorOf(float x, const QueryUnit& unit) {
  if (!(unit.unit >= 0.0F)) return 0;
  return static_cast<int8_t>(std::nearbyint(std::clamp(x * unit.inverse, -127.0F, 127.0F)));
}

// Those of the instruction set in use.
[[nodiscard]] const CodeKernels& CodeKernelsInUse();

}  // namespace kvc::kernels
