#pragma once
// Element types of tensors in files and caches, and conversions to and from float.

#include <cstdint>
#include <span>
#include <string_view>

namespace kvc {

enum class DType { kF32, kF16, kBF16, kF64, kI64, kI32, kI16, kI8, kU8, kBool };

// The bytes of one element.
[[nodiscard]] int64_t DTypeBytes(DType dtype);

// The names that safetensors uses: "F32", "BF16", ...
[[nodiscard]] std::string_view SafetensorsName(DType dtype);
// Throws kUnsupported for a name that kvc does not read (F8_E4M3, ...).
[[nodiscard]] DType DTypeFromSafetensors(std::string_view name);

// The names that --dtype and the manifest use: "f32", "f16", "bf16". Both throw kUsage for others.
[[nodiscard]] std::string_view ShortName(DType dtype);
[[nodiscard]] DType DTypeFromShortName(std::string_view name);

// Conversions of one number. They round to nearest, ties to even; NaN stays NaN; a number beyond
// the range of f16 becomes infinity.
[[nodiscard]] uint16_t FloatToBF16(float value);
[[nodiscard]] float BF16ToFloat(uint16_t bits);
[[nodiscard]] uint16_t FloatToF16(float value);
[[nodiscard]] float F16ToFloat(uint16_t bits);

// Converts `count` elements at `source` (kF32, kF16, kBF16 or kF64, of any alignment) to float.
// Throws kBadInput for another dtype.
void ConvertToFloat(DType dtype, const void* source, int64_t count, float* target);
// Converts `count` floats to kF32, kF16 or kBF16 at `target`. Throws kInternal for another dtype.
void ConvertFromFloat(const float* source, int64_t count, DType dtype, void* target);

}  // namespace kvc
