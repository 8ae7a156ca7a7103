#pragma once
// Rows of a cache in device memory, in the formats of core/base/row_format.h. Plain C++17: kernels
// and the host include this.

#include <cstddef>
#include <cstdint>

namespace kvc {
struct RowFormat;  // core/base/row_format.h
struct CodeSteps;
}  // namespace kvc

namespace kvc::cuda {

// How a row's elements are stored. kInt8 rows begin with a float scale, their codes follow. Codes
// from kX8 on have the steps of their columns, which stand with no row. kSpread rows are a
// mixture's: codes of 8, 4, 2 and no bits in runs of columns, columns without bits being zeros.
enum class RowCode : int32_t { kF32, kF16, kBF16, kInt8, kX8, kX4, kX2, kSpread };

constexpr bool HasSteps(RowCode code) { return code >= RowCode::kX8; }

// Returns the code of a format. Throws kUnsupported for a format that kernels cannot read.
[[nodiscard]] RowCode RowCodeOf(const RowFormat& format);

// Rows of `width` elements, `stride` bytes apart. A multiple of 4 bytes is certain of neither the
// address nor the stride where elements have 2 bytes: thin keys may have any width.
struct CachedRows {
  void* data = nullptr;
  RowCode code = RowCode::kF32;
  int32_t width = 0;
  int64_t stride = 0;
  // On the device, above zero: of codes with steps, [width]; of kSpread those of 8, 4 and 2 bits,
  // steps_apart one behind the other; else null.
  const float* steps = nullptr;
  int16_t steps_apart = 0;  // 0 where all columns are alike
  // Of kSpread: the columns at which the runs of 8, 4 and 2 bits end, multiples of 8 that never
  // fall and may lie beyond the width (RunEnds, core/base/row_format.h).
  int16_t ends[3] = {};
};

// Bytes of a row without what lies between rows: RowBytes (core/base/row_format.h) of the code's
// format. Throws kInternal for runs that do not end in order.
[[nodiscard]] int64_t CachedRowBytes(const CachedRows& rows);

// Sets what says how codes with steps lie: `on_device` is where the steps are that `steps` has on
// the host. Throws kUnsupported for columns that int16_t cannot number.
void SetSteps(const CodeSteps& steps, const float* on_device, CachedRows& rows);

// The columns that have bits, rows of their own: all but those at a kSpread row's end.
[[nodiscard]] CachedRows CodedColumns(CachedRows rows);

// What the host checks of rows before kernels read them: their width, addresses and strides that
// are multiples of what the code is loaded in, and steps where the code has some. Throws kBadShape,
// naming `what` and its number.
void CheckCachedRows(const CachedRows& rows, const char* what, size_t number);
// The same for kernels that know no codes with steps: throws kUnsupported, naming the format.
void CheckPlainRows(const CachedRows& rows, const char* what, size_t number);

}  // namespace kvc::cuda
