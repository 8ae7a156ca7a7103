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

constexpr std::array<NamedFormat, 7> kFormats = {{
    {"f32", kRowsF32, 32},
    {"f16", kRowsF16, 16},
    {"bf16", kRowsBF16, 16},
    {"int8", kRowsInt8, 8},
    {"x8", kRowsX8, 8},
    {"x4", kRowsX4, 4},
    {"x2", kRowsX2, 2},
}};

const NamedFormat& Known(const RowFormat& format) {
  for (const NamedFormat& known : kFormats) {
    if (known.format == format) return known;
  }
  KVC_THROW(kUnsupported,
            "row format: expected f32, f16, bf16, int8, x8, x4 or x2, got element type {}, scales "
            "{}, groups of {}",
            static_cast<int>(format.element), static_cast<int>(format.scales), format.group);
}

// One row of codes with steps.
class StepCodes {
 public:
  StepCodes(const RowFormat& format, int64_t width, CodeSteps steps)
      : steps_(steps),
        width_(width),
        bits_(static_cast<int>(ElementBits(format))),
        row_bytes_(RowBytes(format, width)) {
    KVC_CHECK(steps != nullptr, kInternal, "rows in {}: expected the steps of their columns",
              RowFormatName(format));
  }

  void Encode(const float* row, std::byte* target) const {
    std::memset(target, 0, static_cast<size_t>(row_bytes_));
    const int zero = 1 << (bits_ - 1);
    const auto least = static_cast<float>(-zero);
    const auto most = static_cast<float>(zero - 1);
    for (int64_t i = 0; i < width_; ++i) {
      KVC_CHECK(std::isfinite(row[i]), kNumeric, "rows in codes: expected finite numbers, got {}",
                row[i]);
      const float code = std::clamp(std::floor(row[i] / steps_[i]), least, most);
      const auto stored = static_cast<unsigned>(static_cast<int>(code) + zero);
      target[i * bits_ / 8] |= static_cast<std::byte>(stored << (i * bits_ % 8));
    }
  }

  void Decode(const std::byte* source, float* row) const {
    const unsigned mask = (1U << bits_) - 1;
    const float shift = 0.5F - static_cast<float>(1 << (bits_ - 1));
    for (int64_t i = 0; i < width_; ++i) {
      const unsigned stored =
          (static_cast<unsigned>(source[i * bits_ / 8]) >> (i * bits_ % 8)) & mask;
      row[i] = (static_cast<float>(stored) + shift) * steps_[i];
    }
  }

 private:
  CodeSteps steps_;
  int64_t width_;
  int bits_;
  int64_t row_bytes_;
};

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
  KVC_THROW(kUsage, "row format: expected f32, f16, bf16, int8, x8, x4 or x2, got \"{}\"", name);
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
  const int64_t aligned = (bytes + kScaledAlignment - 1) / kScaledAlignment * kScaledAlignment;
  return aligned + (format.scales == RowScales::kFront ? kScaleBytes : 0);
}

void EncodeRows(
    ConstMatrixF rows, const RowFormat& format, void* target, int64_t stride, CodeSteps steps) {
  const int64_t row_bytes = RowBytes(format, rows.cols);
  auto* bytes = static_cast<std::byte*>(target);
  if (format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertFromFloat(rows.row(t), rows.cols, dtype, bytes + t * stride);
    }
    return;
  }
  if (NeedsSteps(format)) {
    const StepCodes codes(format, rows.cols, steps);
    for (int64_t t = 0; t < rows.rows; ++t) codes.Encode(rows.row(t), bytes + t * stride);
    return;
  }
  for (int64_t t = 0; t < rows.rows; ++t) {
    EncodeInt8(rows.row(t), rows.cols, bytes + t * stride, row_bytes);
  }
}

void DecodeRows(
    const void* source, const RowFormat& format, int64_t stride, MatrixF rows, CodeSteps steps) {
  const auto* bytes = static_cast<const std::byte*>(source);
  if (Known(format).format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertToFloat(dtype, bytes + t * stride, rows.cols, rows.row(t));
    }
    return;
  }
  if (NeedsSteps(format)) {
    const StepCodes codes(format, rows.cols, steps);
    for (int64_t t = 0; t < rows.rows; ++t) codes.Decode(bytes + t * stride, rows.row(t));
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
    DecodeRows(in + t * from.stride, from.format, from.stride, view, from.steps);
    EncodeRows(view, to.format, out + t * to.stride, to.stride, to.steps);
  }
}

}  // namespace kvc
