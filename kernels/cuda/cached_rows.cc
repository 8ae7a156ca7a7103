#include "kernels/cuda/cached_rows.h"

#include "core/base/error.h"
#include "core/base/row_format.h"

namespace kvc::cuda {

RowCode RowCodeOf(const RowFormat& format) {
  if (format == kRowsF32) return RowCode::kF32;
  if (format == kRowsF16) return RowCode::kF16;
  if (format == kRowsBF16) return RowCode::kBF16;
  if (format == kRowsInt8) return RowCode::kInt8;
  KVC_THROW(kUnsupported, "device rows: expected f32, f16, bf16 or int8, got {}",
            RowFormatName(format));
}

int64_t CachedRowBytes(RowCode code, int64_t width) {
  switch (code) {
    case RowCode::kF32:
      return RowBytes(kRowsF32, width);
    case RowCode::kF16:
      return RowBytes(kRowsF16, width);
    case RowCode::kBF16:
      return RowBytes(kRowsBF16, width);
    case RowCode::kInt8:
      return RowBytes(kRowsInt8, width);
  }
  KVC_THROW(kInternal, "device rows: expected a code, got {}", static_cast<int>(code));
}

}  // namespace kvc::cuda
