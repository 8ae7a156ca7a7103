#pragma once
// Planes of cached rows on the device, whose bytes the host knows.

#include <algorithm>
#include <cstring>
#include <vector>

#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "kernels/cuda/cached_rows.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/test_rows.h"
#include "tests/cuda/test_steps.h"

namespace kvc::cuda {

inline const std::vector<RowFormat> kRowFormats = {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8};
// With those that need steps.
inline const std::vector<RowFormat> kAllRowFormats = {
    kRowsF32, kRowsF16, kRowsBF16, kRowsInt8, kRowsX8, kRowsX4, kRowsX2, kRowsFew, kRowsMany};

// Rows [rows, width] of a format, `pad` bytes behind each and `offset` in front of the first.
struct CachedPlane {
  RowFormat format;
  TestCodes codes;
  int64_t rows, width, stride, offset;
  std::vector<std::byte> bytes;  // [offset + rows * stride], as they were at the start
  DeviceArray<std::byte> device;

  // values [rows, width]
  CachedPlane(const RowFormat& row_format,
              int64_t num,
              int64_t columns,
              int64_t pad,
              int64_t before,
              const std::vector<float>& values)
      : format(row_format),
        codes(row_format, columns),
        rows(num),
        width(columns),
        stride(RowBytes(row_format, columns, codes.host()) + pad),
        offset(before),
        bytes(static_cast<size_t>(before + num * stride), std::byte{0xa5}),
        device(Encode(values)) {}

  [[nodiscard]] CachedRows view() const {
    CachedRows plane = {device.data() + offset, RowCodeOf(format), static_cast<int32_t>(width),
                        stride};
    codes.Set(plane);
    return plane;
  }
  [[nodiscard]] StoredRows stored() const { return {format, width, stride, codes.host()}; }
  // Byte 0 of a row in `bytes`, or in what Now returned.
  [[nodiscard]] int64_t At(int64_t row) const { return offset + row * stride; }
  // Overwrites all rows, here and on the device, so that what is not written anew is seen.
  void Soil() {
    std::fill(bytes.begin(), bytes.end(), std::byte{0xa5});
    CopyToDevice(device.data(), bytes.data(), bytes.size(), nullptr);
    Synchronize(nullptr);
  }
  [[nodiscard]] std::vector<std::byte> Now() const { return device.Host(); }
  // Rows as float, of `from`: `bytes` or what Now returned.
  [[nodiscard]] std::vector<float> Decoded(const std::vector<std::byte>& from) const {
    std::vector<float> values(static_cast<size_t>(rows * width));
    DecodeRows(from.data() + offset, format, stride, {values.data(), rows, width}, codes.host());
    return values;
  }

 private:
  const std::vector<std::byte>& Encode(const std::vector<float>& values) {
    EncodeRows({values.data(), rows, width}, format, bytes.data() + offset, stride, codes.host());
    return bytes;
  }
};

// Normal numbers, and now and then a row of what formats find hard: zeros, numbers too small or too
// large for a scale or for 16 bits, ties, infinities and NaNs with payloads.
inline std::vector<float> HardFloats(Rng& rng, int64_t rows, int64_t width) {
  std::vector<float> values(static_cast<size_t>(rows * width));
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t kind = rng.NextBelow(16);
    for (int64_t c = 0; c < width; ++c) {
      const double x = rng.NextNormal();
      const double scale = kind == 0   ? 0.0
                           : kind == 1 ? 0x1p-140
                           : kind == 2 ? 0x1p-20
                           : kind == 3 ? 0x1p126
                           : kind == 4 ? 6e4
                                       : 1.0;
      auto value = static_cast<float>(kind == 5 ? std::round(x * 8.0) * 0.5 : x * scale);
      if (kind == 6 && c % 5 == 1) value = c % 2 == 0 ? -INFINITY : INFINITY;
      if (kind == 7 && c % 5 == 2) {
        const uint32_t nan = 0xff812345U + (static_cast<uint32_t>(c) << 14);
        std::memcpy(&value, &nan, sizeof(value));
      }
      values[static_cast<size_t>(r * width + c)] = value;
    }
  }
  return values;
}

// A plane of such rows, or of normal numbers alone where `finite` or the format asks for them. Two
// paddings out of three leave no 16-byte accesses.
inline CachedPlane RandomPlane(
    Rng& rng, const RowFormat& format, int64_t rows, int64_t width, bool finite = false) {
  const int64_t unit = ElementBits(format) == 16 ? 2 : 4;
  const int64_t pad = std::vector<int64_t>{0, unit, 16}[static_cast<size_t>(rng.NextBelow(3))];
  const int64_t offset = std::vector<int64_t>{0, unit, 16}[static_cast<size_t>(rng.NextBelow(3))];
  finite = finite || NeedsSteps(format);
  return {format, rows,   width,
          pad,    offset, finite ? RandomFloats(rng, rows * width) : HardFloats(rng, rows, width)};
}

}  // namespace kvc::cuda
