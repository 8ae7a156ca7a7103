#pragma once
// Rows of a cache in device memory, in the formats of core/base/row_format.h. Plain C++17: kernels
// and the host include this.

#include <cstddef>
#include <cstdint>

namespace kvc {
struct RowFormat;  // core/base/row_format.h
}

namespace kvc::cuda {

// How a row's elements are stored. kInt8 rows begin with a float scale, their codes follow. Codes
// of kX8, kX4 and kX2 have the steps of their columns, which stand with no row.
enum class RowCode : int32_t { kF32, kF16, kBF16, kInt8, kX8, kX4, kX2 };

// Bits of a code with steps; 0 for other elements.
constexpr int StepBits(RowCode code) {
  return code == RowCode::kX8 ? 8 : code == RowCode::kX4 ? 4 : code == RowCode::kX2 ? 2 : 0;
}

// Returns the code of a format. Throws kUnsupported for a format that kernels cannot read.
[[nodiscard]] RowCode RowCodeOf(const RowFormat& format);

// Bytes of a row without what lies between rows: RowBytes (core/base/row_format.h) of the code's
// format.
[[nodiscard]] int64_t CachedRowBytes(RowCode code, int64_t width);

// Rows of `width` elements, `stride` bytes apart. A multiple of 4 bytes is certain of neither the
// address nor the stride where elements have 2 bytes: thin keys may have any width.
struct CachedRows {
  void* data = nullptr;
  RowCode code = RowCode::kF32;
  int32_t width = 0;
  int64_t stride = 0;
  // On the device, [width], above zero: of codes with steps; else null.
  const float* steps = nullptr;
};

// What the host checks of rows before kernels read them: their width, addresses and strides that
// are multiples of what the code is loaded in, and steps where the code has some. Throws kBadShape,
// naming `what` and its number.
void CheckCachedRows(const CachedRows& rows, const char* what, size_t number);
// The same for kernels that know no codes with steps: throws kUnsupported, naming the format.
void CheckPlainRows(const CachedRows& rows, const char* what, size_t number);

}  // namespace kvc::cuda
