#pragma once
// Rows of a cache in device memory, in the formats of core/base/row_format.h. Plain C++17: kernels
// and the host include this.

#include <cstdint>

namespace kvc {
struct RowFormat;  // core/base/row_format.h
}

namespace kvc::cuda {

// How a row's elements are stored. kInt8 rows begin with a float scale, their codes follow.
enum class RowCode : int32_t { kF32, kF16, kBF16, kInt8 };

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
};

}  // namespace kvc::cuda
