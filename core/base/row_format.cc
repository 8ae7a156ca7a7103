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

// avg0.25, avg0.5, ..., avg7.75.
const std::array<std::string, kMixedRates>& MixedNames() {
  static const std::array<std::string, kMixedRates> names = [] {
    constexpr std::array<const char*, 4> kQuarters = {"", ".25", ".5", ".75"};
    std::array<std::string, kMixedRates> made;
    for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
      made[rate - 1] = "avg" + std::to_string(rate / 4) + kQuarters[rate % 4];
    }
    return made;
  }();
  return names;
}

NamedFormat Known(const RowFormat& format) {
  for (const NamedFormat& known : kFormats) {
    if (known.format == format) return known;
  }
  const bool has_rate = format.rate >= 1 && format.rate <= kMixedRates;
  if (has_rate && format == MixedRows(format.rate)) {
    return {MixedNames()[format.rate - 1], format, kCodeBits.front()};
  }
  KVC_THROW(kUnsupported,
            "row format: expected f32, f16, bf16, int8, x8, x4, x2 or a mixture (avg3), got "
            "element type {}, scales {}, groups of {}, {} quarters of a bit",
            static_cast<int>(format.element), static_cast<int>(format.scales), format.group,
            format.rate);
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

void CheckFinite(const float* row, int64_t count) {
  const float largest = LargestMagnitude(row, count);
  KVC_CHECK(largest <= std::numeric_limits<float>::max(), kNumeric,
            "rows in codes: expected finite numbers, got {}", largest);
}

// Codes that are packed at a time: whole bytes of any number of bits.
constexpr int64_t kChunk = 64;

// The codes [kChunk] of `count` numbers, the rest zero. Without branches and calls: vector code.
void CodesOf(const float* row, const float* steps, int64_t count, int32_t bits, uint8_t* codes) {
  const auto zero = static_cast<float>(1 << (bits - 1));
  for (int64_t i = 0; i < count; ++i) {
    const float scaled = std::min(std::max(row[i] / steps[i], -zero), zero - 1.0F);
    const auto whole = static_cast<int32_t>(scaled);
    const int32_t floor = whole - (static_cast<float>(whole) > scaled ? 1 : 0);
    codes[i] = static_cast<uint8_t>(floor + (1 << (bits - 1)));
  }
  std::fill(codes + count, codes + kChunk, uint8_t{0});
}

// Writes the codes of a run of finite numbers.
void EncodeRun(const CodeRun& run, const float* row, std::byte* target) {
  for (int64_t first = 0; first < run.end - run.begin; first += kChunk) {
    const int64_t count = std::min(kChunk, run.end - run.begin - first);
    uint8_t codes[kChunk];
    CodesOf(row + run.begin + first, run.steps + first, count, run.bits, codes);
    auto* bytes = reinterpret_cast<uint8_t*>(target) + run.offset + first * run.bits / 8;
    const int64_t used = (count * run.bits + 7) / 8;
    if (run.bits == 8) {
      std::copy_n(codes, used, bytes);
    } else if (run.bits == 4) {
      for (int64_t i = 0; i < used; ++i) {
        bytes[i] = static_cast<uint8_t>(codes[2 * i] | codes[2 * i + 1] << 4);
      }
    } else {
      for (int64_t i = 0; i < used; ++i) {
        const uint8_t* four = codes + 4 * i;
        bytes[i] = static_cast<uint8_t>(four[0] | four[1] << 2 | four[2] << 4 | four[3] << 6);
      }
    }
  }
}

void DecodeRun(const CodeRun& run, const std::byte* source, float* row) {
  const float shift = 0.5F - static_cast<float>(1 << (run.bits - 1));
  for (int64_t first = 0; first < run.end - run.begin; first += kChunk) {
    const int64_t count = std::min(kChunk, run.end - run.begin - first);
    const auto* bytes =
        reinterpret_cast<const uint8_t*>(source) + run.offset + first * run.bits / 8;
    const int64_t used = (count * run.bits + 7) / 8;
    uint8_t codes[kChunk];
    if (run.bits == 8) {
      std::copy_n(bytes, used, codes);
    } else if (run.bits == 4) {
      for (int64_t i = 0; i < used; ++i) {
        codes[2 * i] = bytes[i] & 15U;
        codes[2 * i + 1] = bytes[i] >> 4;
      }
    } else {
      for (int64_t i = 0; i < used; ++i) {
        for (int64_t j = 0; j < 4; ++j) codes[4 * i + j] = bytes[i] >> (2 * j) & 3U;
      }
    }
    const float* steps = run.steps + first;
    float* target = row + run.begin + first;
    for (int64_t i = 0; i < count; ++i) {
      target[i] = (static_cast<float>(codes[i]) + shift) * steps[i];
    }
  }
}

// Columns from this one on are not stored, and read as zero.
int64_t StoredColumns(const CodeRuns& runs) {
  return runs.count == 0 ? 0 : runs.all[runs.count - 1].end;
}

// The dtype of plain elements.
DType ElementType(RowElement element) {
  if (element == RowElement::kF32) return DType::kF32;
  return element == RowElement::kF16 ? DType::kF16 : DType::kBF16;
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
  for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
    if (MixedNames()[rate - 1] == name) return MixedRows(rate);
  }
  KVC_THROW(kUsage,
            "row format: expected f32, f16, bf16, int8, x8, x4, x2 or avg0.25 to avg7.75 in "
            "quarters, got \"{}\"",
            name);
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

double MeanBits(const RowFormat& format) {
  const NamedFormat known = Known(format);
  return IsMixed(format) ? format.rate / 4.0 : static_cast<double>(known.bits);
}

CodeRuns RunsOf(const RowFormat& format, int64_t width, const CodeSteps& steps) {
  const NamedFormat known = Known(format);
  KVC_CHECK(NeedsSteps(format), kUnsupported, "rows in {}: expected a format with steps",
            known.name);
  KVC_CHECK(steps.data != nullptr, kInternal, "rows in {}: expected the steps of their columns",
            known.name);
  CodeRuns runs;
  const auto add = [&](int32_t bits, int64_t begin, int64_t end, const float* first) {
    if (begin == end) return;
    runs.all[runs.count++] = {bits, begin, end, runs.bytes, first};
    runs.bytes += ((end - begin) * bits + 7) / 8;
  };
  if (!IsMixed(format)) {
    add(static_cast<int32_t>(known.bits), 0, width, steps.data);
  } else {
    int64_t begin = 0;
    for (size_t i = 0; i < kCodeBits.size(); ++i) {
      const int64_t end = std::min<int64_t>(steps.ends[i], width);
      KVC_CHECK(steps.ends[i] % kColumnBlock == 0 && end >= begin, kInternal,
                "rows in {}: expected runs of whole blocks of columns, one behind the other, got "
                "one that ends at {}",
                known.name, steps.ends[i]);
      add(kCodeBits[i], begin, end, steps.data + static_cast<int64_t>(i) * steps.stride + begin);
      begin = end;
    }
  }
  runs.bytes = (runs.bytes + kScaledAlignment - 1) / kScaledAlignment * kScaledAlignment;
  return runs;
}

int64_t RowBytes(const RowFormat& format, int64_t width, const CodeSteps& steps) {
  if (IsMixed(format)) return RunsOf(format, width, steps).bytes;
  const int64_t bytes = (width * Known(format).bits + 7) / 8;
  if (format.scales == RowScales::kNone) return bytes;
  const int64_t aligned = (bytes + kScaledAlignment - 1) / kScaledAlignment * kScaledAlignment;
  return aligned + (format.scales == RowScales::kFront ? kScaleBytes : 0);
}

void EncodeRows(ConstMatrixF rows,
                const RowFormat& format,
                void* target,
                int64_t stride,
                const CodeSteps& steps) {
  auto* bytes = static_cast<std::byte*>(target);
  if (Known(format).format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertFromFloat(rows.row(t), rows.cols, dtype, bytes + t * stride);
    }
    return;
  }
  if (NeedsSteps(format)) {
    const CodeRuns runs = RunsOf(format, rows.cols, steps);
    for (int64_t t = 0; t < rows.rows; ++t) {
      CheckFinite(rows.row(t), rows.cols);
      std::fill_n(bytes + t * stride, runs.bytes, std::byte{0});
      for (const CodeRun& run : runs.runs()) EncodeRun(run, rows.row(t), bytes + t * stride);
    }
    return;
  }
  const int64_t row_bytes = RowBytes(format, rows.cols);
  for (int64_t t = 0; t < rows.rows; ++t) {
    EncodeInt8(rows.row(t), rows.cols, bytes + t * stride, row_bytes);
  }
}

void DecodeRows(const void* source,
                const RowFormat& format,
                int64_t stride,
                MatrixF rows,
                const CodeSteps& steps) {
  const auto* bytes = static_cast<const std::byte*>(source);
  if (Known(format).format.scales == RowScales::kNone) {
    const DType dtype = ElementType(format.element);
    for (int64_t t = 0; t < rows.rows; ++t) {
      ConvertToFloat(dtype, bytes + t * stride, rows.cols, rows.row(t));
    }
    return;
  }
  if (NeedsSteps(format)) {
    const CodeRuns runs = RunsOf(format, rows.cols, steps);
    for (int64_t t = 0; t < rows.rows; ++t) {
      for (const CodeRun& run : runs.runs()) DecodeRun(run, bytes + t * stride, rows.row(t));
      std::fill(rows.row(t) + StoredColumns(runs), rows.row(t) + rows.cols, 0.0F);
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
    const auto bytes = static_cast<size_t>(RowBytes(to.format, to.width, to.steps));
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
