#pragma once
// Random matrices on the device with the values that the host knows.

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/rng.h"
#include "kernels/cuda/rows.h"
#include "tests/cuda/device_array.h"

namespace kvc::cuda {

// Half a unit in the last place of 1.
inline double UnitOf(DType dtype) {
  return dtype == DType::kF32 ? 0x1p-24 : dtype == DType::kF16 ? 0x1p-11 : 0x1p-8;
}

// Rows [rows, width], `pad` unused elements behind each.
struct TestRows {
  DType dtype;
  int64_t rows, width, stride;
  std::vector<float> values;  // [rows, stride], as the dtype holds them
  DeviceArray<std::byte> device;

  TestRows(DType type, int64_t num, int64_t columns, int64_t pad, const std::vector<float>& x)
      : dtype(type),
        rows(num),
        width(columns),
        stride(columns + pad),
        values(x),
        device(Bytes(type, x)) {
    std::vector<std::byte> bytes = Bytes(type, x);
    ConvertToFloat(type, bytes.data(), static_cast<int64_t>(x.size()), values.data());
  }

  [[nodiscard]] double at(int64_t row, int64_t column) const {
    return values[static_cast<size_t>(row * stride + column)];
  }
  [[nodiscard]] Rows view() const { return {device.data(), dtype, rows, width, stride}; }
  // What the device holds now, [rows, stride].
  [[nodiscard]] std::vector<float> Now() const {
    const std::vector<std::byte> bytes = device.Host();
    std::vector<float> now(values.size());
    ConvertToFloat(dtype, bytes.data(), static_cast<int64_t>(now.size()), now.data());
    return now;
  }

 private:
  static std::vector<std::byte> Bytes(DType type, const std::vector<float>& x) {
    std::vector<std::byte> bytes(x.size() * static_cast<size_t>(DTypeBytes(type)));
    ConvertFromFloat(x.data(), static_cast<int64_t>(x.size()), type, bytes.data());
    return bytes;
  }
};

inline TestRows RandomRows(Rng& rng, DType dtype, int64_t rows, int64_t width, int64_t pad = 0) {
  std::vector<float> x(static_cast<size_t>(rows * (width + pad)));
  for (float& value : x) {
    value = static_cast<float>(rng.NextNormal());
  }
  return {dtype, rows, width, pad, x};
}

inline std::vector<float> RandomFloats(Rng& rng, int64_t count) {
  std::vector<float> x(static_cast<size_t>(count));
  for (float& value : x) {
    value = static_cast<float>(rng.NextNormal());
  }
  return x;
}

constexpr DType kFloatTypes[] = {DType::kF32, DType::kF16, DType::kBF16};

}  // namespace kvc::cuda
