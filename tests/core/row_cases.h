#pragma once
// Rows for the tests of row formats.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/base/rng.h"
#include "core/base/row_format.h"

namespace kvc::testing {

inline constexpr float kInfinity = std::numeric_limits<float>::infinity();
inline constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Returns numbers of a normal distribution around zero.
inline std::vector<float> RandomRow(Rng& rng, int64_t width, double scale = 1.0) {
  std::vector<float> row(static_cast<size_t>(width));
  for (float& x : row) x = static_cast<float>(scale * rng.NextNormal());
  return row;
}

// Returns the bytes of one row in a format that needs no steps.
inline std::vector<std::byte> Encoded(const RowFormat& format, const std::vector<float>& row) {
  const auto width = static_cast<int64_t>(row.size());
  std::vector<std::byte> bytes(static_cast<size_t>(RowBytes(format, width)), std::byte{0xee});
  EncodeRows({row.data(), 1, width}, format, bytes.data(), RowBytes(format, width));
  return bytes;
}

// Returns the n numbers of such a row.
inline std::vector<float> Decoded(const RowFormat& format,
                                  const std::vector<std::byte>& bytes,
                                  size_t n) {
  std::vector<float> row(n);
  DecodeRows(bytes.data(), format, std::ssize(bytes), {row.data(), 1, static_cast<int64_t>(n)});
  return row;
}

}  // namespace kvc::testing
