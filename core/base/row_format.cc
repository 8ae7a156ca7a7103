#include "core/base/row_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"

namespace kvc {
namespace {

constexpr int64_t kScaleBytes = sizeof(float);
constexpr int64_t kScaledAlignment = 4;
constexpr float kLargestCode = 127.0F;
// The largest float whose product with the largest code is finite.
constexpr float kLargestScale = 0x1.020406p+121F;

struct NamedFormat {
  std::string_view name;
  RowFormat format;
  int64_t bits;  // of an element
};

constexpr std::array<NamedFormat, 4> kFormats = {{
    {"f32", kRowsF32, 32},
    {"f16", kRowsF16, 16},
    {"bf16", kRowsBF16, 16},
    {"int8", kRowsInt8, 8},
}};

const NamedFormat& Known(const RowFormat& format) {
  for (const NamedFormat& known : kFormats) {
    if (known.format == format) return known;
  }
  KVC_THROW(kUnsupported,
            "row format: expected f32, f16, bf16 or int8, got element type {}, scales {}, groups "
            "of {}",
            static_cast<int>(format.element), static_cast<int>(format.scales), format.group);
}

// The dtype of plain elements.
DType ElementType(RowElement element) {
  if (element == RowElement::kF32) return DType::kF32;
  return element == RowElement::kF16 ? DType::kF16 : DType::kBF16;
}

// max |x|; NaN where an element is NaN, whatever comes behind it.
float LargestMagnitude(const float* row, int64_t width) {
  // As integers, magnitudes of floats have the order of their values, infinity and NaN on top: the
  // loop has no branch and becomes vector code.
  uint32_t largest = 0;
  for (int64_t i = 0; i < width; ++i) {
    largest = std::max(largest, std::bit_cast<uint32_t>(row[i]) & 0x7fffffffU);
  }
  return std::bit_cast<float>(largest);
}

void EncodeInt8(const float* row, int64_t width, std::byte* target, int64_t row_bytes) {
  const float largest = LargestMagnitude(row, width);
  const bool finite = largest <= std::numeric_limits<float>::max();
  const float scale = finite ? std::min(largest / kLargestCode, kLargestScale)
                             : std::numeric_limits<float>::quiet_NaN();
  std::memcpy(target, &scale, kScaleBytes);
  std::byte* codes = target + kScaleBytes;
  if (!finite || scale == 0.0F) {
    std::memset(codes, 0, static_cast<size_t>(row_bytes - kScaleBytes));
    return;
  }
  // Adding 1.5 x 2^23 leaves the integer nearest to x, ties to even, in the low bits.
  constexpr float kShift = 12582912.0F;
  for (int64_t i = 0; i < width; ++i) {
    const float code = std::clamp(row[i] / scale, -kLargestCode, kLargestCode) + kShift;
    codes[i] = static_cast<std::byte>(std::bit_cast<uint32_t>(code) & 0xffU);
  }
  std::memset(codes + width, 0, static_cast<size_t>(row_bytes - kScaleBytes - width));
}

void DecodeInt8(const std::byte* source, int64_t width, float* row) {
  float scale = 0.0F;
  std::memcpy(&scale, source, kScaleBytes);
  const auto* codes = reinterpret_cast<const int8_t*>(source + kScaleBytes);
  for (int64_t i = 0; i < width; ++i) row[i] = scale * static_cast<float>(codes[i]);
}

}  // namespace

std::string_view RowFormatName(const RowFormat& format) { return Known(format).name; }

RowFormat RowFormatFromName(std::string_view name) {
  for (const NamedFormat& known : kFormats) {
    if (known.name == name) return known.format;
  }
  KVC_THROW(kUsage, "cache dtype: expected f32, f16, bf16 or int8, got \"{}\"", name);
}

RowFormat RowFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kRowsF32;
    case DType::kF16:
      return kRowsF16;
    case DType::kBF16:
      return kRowsBF16;
    default:
      KVC_THROW(kUnsupported, "row format: expected F32, F16 or BF16 elements, got {}",
                SafetensorsName(dtype));
  }
}

int64_t ElementBits(const RowFormat& format) { return Known(format).bits; }

int64_t RowBytes(const RowFormat& format, int64_t width) {
  const int64_t bytes = (width * Known(format).bits + 7) / 8;
  if (format.scales == RowScales::kNone) return bytes;
  return kScaleBytes + (bytes + kScaledAlignment - 1) / kScaledAlignment * kScaledAlignment;
}

void EncodeRows(ConstMatrixF rows, const RowFormat& format, void* target, int64_t stride) {
  const int64_t row_bytes = RowBytes(format, rows.cols);
  auto* bytes = static_cast<std::byte*>(target);
  if (format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertFromFloat(rows.row(t), rows.cols, dtype, bytes + t * stride);
    }
    return;
  }
  for (int64_t t = 0; t < rows.rows; ++t) {
    EncodeInt8(rows.row(t), rows.cols, bytes + t * stride, row_bytes);
  }
}

void DecodeRows(const void* source, const RowFormat& format, int64_t stride, MatrixF rows) {
  const auto* bytes = static_cast<const std::byte*>(source);
  if (Known(format).format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertToFloat(dtype, bytes + t * stride, rows.cols, rows.row(t));
    }
    return;
  }
  for (int64_t t = 0; t < rows.rows; ++t) DecodeInt8(bytes + t * stride, rows.cols, rows.row(t));
}

void CopyRows(
    const void* source, const StoredRows& from, int64_t count, void* target, const StoredRows& to) {
  KVC_CHECK(to.width <= from.width, kInternal,
            "rows: expected at most the {} columns that there are, got {}", from.width, to.width);
  const auto* in = static_cast<const std::byte*>(source);
  auto* out = static_cast<std::byte*>(target);
  const bool plain = from.format.scales == RowScales::kNone;
  if (from.format == to.format && (plain || from.width == to.width)) {
    const auto bytes = static_cast<size_t>(RowBytes(to.format, to.width));
    for (int64_t t = 0; t < count; ++t) {
      std::memcpy(out + t * to.stride, in + t * from.stride, bytes);
    }
    return;
  }
  std::vector<float> row(static_cast<size_t>(to.width));
  const MatrixF view(row.data(), 1, to.width);
  for (int64_t t = 0; t < count; ++t) {
    DecodeRows(in + t * from.stride, from.format, from.stride, view);
    EncodeRows(view, to.format, out + t * to.stride, to.stride);
  }
}

}  // namespace kvc
