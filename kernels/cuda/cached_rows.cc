#include "kernels/cuda/cached_rows.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "core/base/error.h"
#include "core/base/row_format.h"

namespace kvc::cuda {
namespace {

// Some mixture's, where the rate is not known: it says nothing that the ends do not.
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
    case RowCode::kSpread:
      return MixedRows(1);
  }
  KVC_THROW(kInternal, "device rows: expected a code, got {}", static_cast<int>(code));
}

std::string_view NameOf(RowCode code) {
  return code == RowCode::kSpread ? "a mixture" : RowFormatName(FormatOf(code));
}

CodeSteps StepsOf(const CachedRows& rows) {
  if (rows.code != RowCode::kSpread) return {rows.steps};
  return {rows.steps, rows.steps_apart, {rows.ends[0], rows.ends[1], rows.ends[2]}};
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
  static_cast<void>(RowFormatName(format));  // throws for one without a name
  KVC_CHECK(IsMixed(format), kUnsupported,
            "device rows: expected f32, f16, bf16, int8, x8, x4, x2 or a mixture, got {}; use "
            "--device cpu",
            RowFormatName(format));
  return RowCode::kSpread;
}

int64_t CachedRowBytes(const CachedRows& rows) {
  return RowBytes(FormatOf(rows.code), rows.width, StepsOf(rows));
}

void SetSteps(const CodeSteps& steps, const float* on_device, CachedRows& rows) {
  rows.steps = on_device;
  if (rows.code != RowCode::kSpread) return;
  const int64_t most = std::max<int64_t>(steps.stride, steps.ends.back());
  KVC_CHECK(most <= std::numeric_limits<int16_t>::max(), kUnsupported,
            "device rows: expected a mixture of at most {} columns, got {}",
            std::numeric_limits<int16_t>::max(), most);
  rows.steps_apart = static_cast<int16_t>(steps.stride);
  std::copy(steps.ends.begin(), steps.ends.end(), rows.ends);
}

CachedRows CodedColumns(CachedRows rows) {
  if (rows.code == RowCode::kSpread) rows.width = std::min<int32_t>(rows.width, rows.ends[2]);
  return rows;
}

void CheckCachedRows(const CachedRows& rows, const char* what, size_t number) {
  KVC_CHECK(!HasSteps(rows.code) || rows.steps != nullptr, kBadShape,
            "{} {}: expected the steps of rows in {}, got none", what, number, NameOf(rows.code));
  const int64_t unit = rows.code == RowCode::kF16 || rows.code == RowCode::kBF16 ? 2 : 4;
  const int64_t bytes = CachedRowBytes(rows);
  const auto address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK(rows.width >= 0 && rows.stride >= bytes, kBadShape,
            "{} {}: expected rows at least {} bytes apart, got {}", what, number, bytes,
            rows.stride);
  KVC_CHECK(address % unit == 0 && rows.stride % unit == 0, kBadShape,
            "{} {}: expected rows at multiples of {} bytes, got address {:#x}, stride {}", what,
            number, unit, address, rows.stride);
}

void CheckPlainRows(const CachedRows& rows, const char* what, size_t number) {
  KVC_CHECK(!HasSteps(rows.code), kUnsupported,
            "{} {}: expected rows in f32, f16, bf16 or int8, got {}", what, number,
            NameOf(rows.code));
}

}  // namespace kvc::cuda
