#pragma once
// Bits for the columns of rows that differ by column (mixtures, core/base/row_format.h), from what
// each number of bits leaves of a column as error.
//
// The columns of all given rows share one price of a bit, theta: bits b_i in {8, 4, 2, 0} minimise
// sum_i e_i(b_i) + theta b_i, equal in blocks of kColumnBlock columns, never rising with the
// column, and two bits at least for a row's first block. theta is the least for which the rows take
// at most the wanted bits; what is left then goes to the blocks that gain most by the bit.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/row_format.h"

namespace kvc {

// The bits whose errors are known, in their order: kCodeBits, and none.
inline constexpr int64_t kErrorLevels = std::ssize(kCodeBits) + 1;

// Errors of a row's columns, [kErrorLevels, width], `width` apart, in one unit for all rows.
struct ColumnErrors {
  const float* errors = nullptr;
  int64_t width = 0;
};

// Returns the runs of each row for `rate` quarters of a bit a column on average over the rows;
// columns whose error without bits is zero do not count. Takes more only where the least that a row
// has is more. Rows are counted as they are stored, in words of four bytes.
[[nodiscard]] std::vector<RunEnds> SpreadBits(std::span<const ColumnErrors> rows, int32_t rate);

}  // namespace kvc
