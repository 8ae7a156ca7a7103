#include "core/base/dtype.h"

#include <array>
#include <bit>
#include <cstring>

#include "core/base/error.h"

namespace kvc {
namespace {

static_assert(std::endian::native == std::endian::little, "files are read as little-endian");

struct DTypeRow {
  DType dtype;
  int64_t bytes;
  std::string_view safetensors;
};

constexpr std::array<DTypeRow, 10> kDTypes = {{
    {DType::kF32, 4, "F32"},
    {DType::kF16, 2, "F16"},
    {DType::kBF16, 2, "BF16"},
    {DType::kF64, 8, "F64"},
    {DType::kI64, 8, "I64"},
    {DType::kI32, 4, "I32"},
    {DType::kI16, 2, "I16"},
    {DType::kI8, 1, "I8"},
    {DType::kU8, 1, "U8"},
    {DType::kBool, 1, "BOOL"},
}};

const DTypeRow& RowOf(DType dtype) {
  for (const DTypeRow& row : kDTypes) {
    if (row.dtype == dtype) {
      return row;
    }
  }
  KVC_THROW(kInternal, "dtype: expected one of the enumeration, got {}", static_cast<int>(dtype));
}

// Loads go through memcpy, because tensors in a file are not aligned; stores likewise.
template <class T>
T LoadAt(const void* source, int64_t index) {
  T value;
  std::memcpy(&value, static_cast<const char*>(source) + index * static_cast<int64_t>(sizeof(T)),
              sizeof(T));
  return value;
}

template <class T>
void StoreAt(void* target, int64_t index, T value) {
  std::memcpy(static_cast<char*>(target) + index * static_cast<int64_t>(sizeof(T)), &value,
              sizeof(T));
}

// The conversions are inline and select by masks instead of branching on the value, so that the
// loops below become vector code.
inline uint32_t Select(bool condition, uint32_t when_true, uint32_t when_false) {
  const uint32_t mask = 0U - static_cast<uint32_t>(condition);
  return (when_true & mask) | (when_false & ~mask);
}

inline float WidenBF16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

inline uint16_t NarrowBF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
  const uint32_t quiet_nan = (bits >> 16) | 0x40U;
  return static_cast<uint16_t>(Select((bits & 0x7fffffffU) > 0x7f800000U, quiet_nan, rounded));
}

inline float WidenF16(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t magnitude = half & 0x7fffU;
  // Exponents 1..30 shift the bias by 127 - 15; 31 (infinity, NaN) becomes 255.
  const uint32_t shift = Select(magnitude >= 0x7c00U, (255U - 31U) << 23, (127U - 15U) << 23);
  const uint32_t normal = (magnitude << 13) + shift;
  // Subnormal: mantissa x 2^-24, exact in float.
  const float tiny = static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1.0p-24F;
  const uint32_t bits = Select(magnitude < 0x400U, std::bit_cast<uint32_t>(tiny), normal);
  return std::bit_cast<float>(bits | sign);
}

inline uint16_t NarrowF16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  const uint32_t normal =
      (magnitude + 0xfffU + ((magnitude >> 13) & 1U) - ((127U - 15U) << 23)) >> 13;
  // Below 2^-14 the result counts in units of 2^-24, the spacing of floats in [0.5, 1): adding 0.5
  // rounds to it, ties to even.
  const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
  const uint32_t subnormal = std::bit_cast<uint32_t>(shifted) - 0x3f000000U;
  const uint32_t nan = 0x7e00U | ((magnitude >> 13) & 0x3ffU);
  uint32_t result = Select(magnitude < 0x38800000U, subnormal, normal);
  result = Select(magnitude >= 0x477ff000U, 0x7c00U, result);  // 65520 and above: infinity
  result = Select(magnitude > 0x7f800000U, nan, result);
  return static_cast<uint16_t>(result | sign);
}

}  // namespace

int64_t DTypeBytes(DType dtype) { return RowOf(dtype).bytes; }

std::string_view SafetensorsName(DType dtype) { return RowOf(dtype).safetensors; }

DType DTypeFromSafetensors(std::string_view name) {
  for (const DTypeRow& row : kDTypes) {
    if (row.safetensors == name) {
      return row.dtype;
    }
  }
  KVC_THROW(kUnsupported,
            "dtype: expected F32, F16, BF16, F64, I64, I32, I16, I8, U8 or BOOL, got \"{}\"", name);
}

std::string_view ShortName(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "f32";
    case DType::kF16:
      return "f16";
    case DType::kBF16:
      return "bf16";
    default:
      KVC_THROW(kUsage, "dtype: expected F32, F16 or BF16, got {}", SafetensorsName(dtype));
  }
}

DType DTypeFromShortName(std::string_view name) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    if (ShortName(dtype) == name) {
      return dtype;
    }
  }
  KVC_THROW(kUsage, "dtype: expected f32, f16 or bf16, got \"{}\"", name);
}

uint16_t FloatToBF16(float value) { return NarrowBF16(value); }
float BF16ToFloat(uint16_t bits) { return WidenBF16(bits); }
uint16_t FloatToF16(float value) { return NarrowF16(value); }
float F16ToFloat(uint16_t bits) { return WidenF16(bits); }

void ConvertToFloat(DType dtype, const void* source, int64_t count, float* target) {
  if (count == 0) {
    return;
  }
  switch (dtype) {
    case DType::kF32:
      std::memcpy(target, source, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        target[i] = WidenF16(LoadAt<uint16_t>(source, i));
      }
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) {
        target[i] = WidenBF16(LoadAt<uint16_t>(source, i));
      }
      return;
    case DType::kF64:
      for (int64_t i = 0; i < count; ++i) {
        target[i] = static_cast<float>(LoadAt<double>(source, i));
      }
      return;
    default:
      KVC_THROW(kBadInput, "dtype: expected a floating type, got {}", SafetensorsName(dtype));
  }
}

void ConvertFromFloat(const float* source, int64_t count, DType dtype, void* target) {
  if (count == 0) {
    return;
  }
  switch (dtype) {
    case DType::kF32:
      std::memcpy(target, source, static_cast<size_t>(count) * sizeof(float));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        StoreAt(target, i, NarrowF16(source[i]));
      }
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) {
        StoreAt(target, i, NarrowBF16(source[i]));
      }
      return;
    default:
      KVC_THROW(kInternal, "dtype: expected F32, F16 or BF16, got {}", SafetensorsName(dtype));
  }
}

}  // namespace kvc
