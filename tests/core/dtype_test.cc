#include "core/base/dtype.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

// Value of a 16-bit float from its definition.
double Decode(uint16_t bits, int exponent_bits, int mantissa_bits) {
  const int exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const int mantissa = bits & ((1 << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = (bits & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == (1 << exponent_bits) - 1) {
    return mantissa == 0 ? sign * std::numeric_limits<double>::infinity() : std::nan("");
  }
  if (exponent == 0) {
    return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  }
  return sign * std::ldexp((1 << mantissa_bits) + mantissa, exponent - bias - mantissa_bits);
}

TEST(DType, EveryHalfWidensToItsDefinition) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double f16 = Decode(half, 5, 10);
    const double bf16 = Decode(half, 8, 7);
    if (std::isnan(f16)) {
      EXPECT_TRUE(std::isnan(F16ToFloat(half)));
    } else {
      ASSERT_EQ(F16ToFloat(half), f16) << bits;
    }
    if (std::isnan(bf16)) {
      EXPECT_TRUE(std::isnan(BF16ToFloat(half)));
    } else {
      ASSERT_EQ(BF16ToFloat(half), bf16) << bits;
    }
  }
  EXPECT_TRUE(std::signbit(F16ToFloat(0x8000)));
}

// Narrowing must give the nearest value, and the even one of two that are as near.
void CheckNearest(float value, uint16_t narrowed, int exponent_bits, int mantissa_bits) {
  const double exact = value;
  const double got = Decode(narrowed, exponent_bits, mantissa_bits);
  const auto next = [&](int step) {
    return Decode(static_cast<uint16_t>(narrowed + step), exponent_bits, mantissa_bits);
  };
  const double below = (narrowed & 0x7fff) == 0 ? -next(1) : next(-1);
  const double above = next(1);
  const double error = std::abs(got - exact);
  EXPECT_LE(error, std::abs(above - exact)) << value;
  EXPECT_LE(error, std::abs(below - exact)) << value;
  if (error > 0 && (error == std::abs(above - exact) || error == std::abs(below - exact))) {
    EXPECT_EQ(narrowed & 1, 0) << value;
  }
}

TEST(DType, NarrowsToNearestEven) {
  Rng rng(1);
  for (int i = 0; i < 200000; ++i) {
    // All exponents that both types hold as finite numbers, and ties.
    const double scale = std::ldexp(1.0, static_cast<int>(rng.NextBelow(40)) - 25);
    auto value = static_cast<float>(rng.NextNormal() * scale);
    if (i % 2 == 0) {
      value = F16ToFloat(FloatToF16(value)) + static_cast<float>(scale * 0x1.0p-12);
    }
    if (std::abs(value) < 65504.0F) {
      CheckNearest(value, FloatToF16(value), 5, 10);
    }
    CheckNearest(value, FloatToBF16(value), 8, 7);
  }
  for (int k = 0; k < 4096; ++k) {  // every tie of f16's subnormals
    const float value = std::ldexp(static_cast<float>(k), -25);
    CheckNearest(value, FloatToF16(value), 5, 10);
  }
}

TEST(DType, NarrowsSpecialValues) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(FloatToF16(65519.9F), 0x7bff);
  EXPECT_EQ(FloatToF16(65520.0F), 0x7c00);
  EXPECT_EQ(FloatToF16(-infinity), 0xfc00);
  EXPECT_EQ(FloatToF16(-0.0F), 0x8000);
  EXPECT_EQ(FloatToF16(0x1.0p-26F), 0);
  EXPECT_EQ(FloatToBF16(infinity), 0x7f80);
  EXPECT_EQ(FloatToBF16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(nan))));
  EXPECT_TRUE(std::isnan(BF16ToFloat(FloatToBF16(nan))));
  // A NaN whose upper mantissa bits are all zero must not turn into an infinity.
  const float thin_nan = std::bit_cast<float>(0x7f800001U);
  EXPECT_TRUE(std::isnan(BF16ToFloat(FloatToBF16(thin_nan))));
  EXPECT_TRUE(std::isnan(F16ToFloat(FloatToF16(thin_nan))));
}

TEST(DType, ConvertsUnalignedArrays) {
  const std::vector<float> values = {0.0F, -1.5F, 3.25F, 1e-3F, 1024.0F, -0.0F, 7.0F};
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    std::vector<char> storage(values.size() * 4 + 1);
    const auto count = static_cast<int64_t>(values.size());
    ConvertFromFloat(values.data(), count, dtype, storage.data() + 1);
    std::vector<float> back(values.size());
    ConvertToFloat(dtype, storage.data() + 1, count, back.data());
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(back[i], values[i], std::abs(values[i]) / 256.0) << SafetensorsName(dtype);
    }
  }
  const std::vector<double> doubles = {1.0, -2.5, 1e300};
  std::vector<float> floats(3);
  ConvertToFloat(DType::kF64, doubles.data(), 3, floats.data());
  EXPECT_EQ(floats[1], -2.5F);
  EXPECT_TRUE(std::isinf(floats[2]));
  ConvertToFloat(DType::kF32, nullptr, 0, nullptr);
}

TEST(DType, NamesAreThoseOfTheFormats) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kF64, DType::kI64,
                            DType::kI32, DType::kI16, DType::kI8, DType::kU8, DType::kBool}) {
    EXPECT_EQ(DTypeFromSafetensors(SafetensorsName(dtype)), dtype);
  }
  EXPECT_EQ(DTypeFromShortName("bf16"), DType::kBF16);
  EXPECT_EQ(DTypeBytes(DType::kBF16), 2);
  EXPECT_KVC_ERROR((void)DTypeFromSafetensors("F8_E4M3"), kUnsupported, "F8_E4M3");
  EXPECT_KVC_ERROR((void)DTypeFromShortName("fp16"), kUsage, "fp16");
  EXPECT_KVC_ERROR((void)ShortName(DType::kI64), kUsage, "I64");
  float value = 0.0F;
  EXPECT_KVC_ERROR(ConvertToFloat(DType::kI32, &value, 1, &value), kBadInput, "I32");
}

}  // namespace
}  // namespace kvc
