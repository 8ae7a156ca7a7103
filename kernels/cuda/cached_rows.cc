#include "kernels/cuda/cached_rows.h"

#include "core/base/error.h"
#include "core/base/row_format.h"

namespace kvc::cuda {
namespace {

RowFormat FormatOf(RowCode code) {
  switch (code) {
    case RowCode::kF32:
      return kRowsF32;
    case RowCode::kF16:
      return kRowsF16;
    case RowCode::kBF16:
      return kRowsBF16;
    case RowCode::kInt8:
      return kRowsInt8;
    case RowCode::kX8:
      return kRowsX8;
    case RowCode::kX4:
      return kRowsX4;
    case RowCode::kX2:
      return kRowsX2;
  }
  KVC_THROW(kInternal, "device rows: expected a code, got {}", static_cast<int>(code));
}

}  // namespace

RowCode RowCodeOf(const RowFormat& format) {
  if (format == kRowsF32) return RowCode::kF32;
  if (format == kRowsF16) return RowCode::kF16;
  if (format == kRowsBF16) return RowCode::kBF16;
  if (format == kRowsInt8) return RowCode::kInt8;
  if (format == kRowsX8) return RowCode::kX8;
  if (format == kRowsX4) return RowCode::kX4;
  if (format == kRowsX2) return RowCode::kX2;
  KVC_THROW(kUnsupported,
            "device rows: expected f32, f16, bf16, int8, x8, x4 or x2, got "
            "{}; use --device cpu",
            RowFormatName(format));
}

int64_t CachedRowBytes(RowCode code, int64_t width) { return RowBytes(FormatOf(code), width); }

void CheckCachedRows(const CachedRows& rows, const char* what, size_t number) {
  const int64_t unit = rows.code == RowCode::kF16 || rows.code == RowCode::kBF16 ? 2 : 4;
  const int64_t bytes = CachedRowBytes(rows.code, rows.width);
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK(rows.width >= 0 && rows.stride >= bytes, kBadShape,
            "{} {}: expected rows at least {} bytes apart, got {}", what, number, bytes,
            rows.stride);
  KVC_CHECK(address % unit == 0 && rows.stride % unit == 0, kBadShape,
            "{} {}: expected rows at multiples of {} bytes, got address {:#x}, stride {}", what,
            number, unit, address, rows.stride);
  KVC_CHECK(StepBits(rows.code) == 0 || rows.steps != nullptr, kBadShape,
            "{} {}: expected the steps of rows in {}, got none", what, number,
            RowFormatName(FormatOf(rows.code)));
}

void CheckPlainRows(const CachedRows& rows, const char* what, size_t number) {
  KVC_CHECK(StepBits(rows.code) == 0, kUnsupported,
            "{} {}: expected rows in f32, f16, bf16 or int8, got {}", what, number,
            RowFormatName(FormatOf(rows.code)));
}

}  // namespace kvc::cuda
