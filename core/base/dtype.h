#pragma once
// Element types of tensors in files and caches, and conversions to and from float.

#include <cstdint>
#include <span>
#include <string_view>

namespace kvc {

enum class DType { kF32, kF16, kBF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

// Bytes of one element.
[[nodiscard]] int64_t DTypeBytes(DType dtype);

// "F32", "BF16", ...: the names that safetensors uses.
[[nodiscard]] std::string_view SafetensorsName(DType dtype);
// Throws kUnsupported for a name that kvc does not read (F8_E4M3, ...).
[[nodiscard]] DType DTypeFromSafetensors(std::string_view name);

// "f32", "f16", "bf16": the names of --dtype and of the manifest. Throws kUsage for others.
[[nodiscard]] std::string_view ShortName(DType dtype);
[[nodiscard]] DType DTypeFromShortName(std::string_view name);

// Round to nearest even; NaN stays NaN; overflow of f16 gives infinity.
[[nodiscard]] uint16_t FloatToBF16(float value);
[[nodiscard]] float BF16ToFloat(uint16_t bits);
[[nodiscard]] uint16_t FloatToF16(float value);
[[nodiscard]] float F16ToFloat(uint16_t bits);

// Converts `count` elements at `source` (kF32, kF16, kBF16 or kF64; any alignment) to float.
void ConvertToFloat(DType dtype, const void* source, int64_t count, float* target);
// The reverse; dtype is kF32, kF16 or kBF16.
void ConvertFromFloat(const float* source, int64_t count, DType dtype, void* target);

}  // namespace kvc
