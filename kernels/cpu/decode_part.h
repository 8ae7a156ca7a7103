#pragma once
// The inner part of DecodeAttention, compiled for each instruction set. Internal to kernels/cpu.

#include <cstdint>
#include <span>

#include "kernels/attention.h"

namespace kvc::kernels {

// What attention over some of a head's rows leaves for one query: with p_i = exp(s_i - maximum),
// `sum` = sum_i p_i and `output` [D_v] = sum_i p_i v_i. A part's partials lie
// PartialStride(D_v) floats apart: maximum, sum, 14 unused, output.
constexpr int64_t kPartialHeader = 16;
constexpr int64_t PartialStride(int64_t value_width) {
  return kPartialHeader + (value_width + 15) / 16 * 16;
}

// Rows begin .. end - 1 of the heads' segments, taken one after the other. More heads than one
// rebuild their keys at the same positions and have sizes in common; partials
// [heads, queries, PartialStride(D_v)].
void AttendRows(
    std::span<const DecodeHead> heads, int64_t begin, int64_t end, float scale, float* partials);

}  // namespace kvc::kernels
