#include "core/base/row_format.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/round_rows.h"
#include "tests/core/row_cases.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

using testing::Decoded;
using testing::Encoded;
using testing::kInfinity;
using testing::kNaN;
using testing::RandomRow;

TEST(RowFormat, NamesAndSizes) {
  for (const RowFormat& format :
       {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8, kRowsX8, kRowsX4, kRowsX2}) {
    EXPECT_EQ(RowFormatFromName(RowFormatName(format)), format);
  }
  for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
    const RowFormat format = MixedRows(rate);
    EXPECT_EQ(RowFormatFromName(RowFormatName(format)), format);
    EXPECT_EQ(MeanBits(format), rate / 4.0);
    EXPECT_TRUE(NeedsSteps(format));
  }
  EXPECT_EQ(RowFormatName(MixedRows(1)), "avg0.25");
  EXPECT_EQ(RowFormatName(MixedRows(6)), "avg1.5");
  EXPECT_EQ(RowFormatName(MixedRows(12)), "avg3");
  EXPECT_EQ(MeanBits(kRowsX4), 4.0);
  EXPECT_EQ(RowFormatName(kRowsInt8), "int8");
  EXPECT_EQ(RowFormatOf(DType::kBF16), kRowsBF16);
  for (int64_t width = 0; width < 20; ++width) {
    EXPECT_EQ(RowBytes(kRowsF32, width), 4 * width);
    EXPECT_EQ(RowBytes(kRowsF16, width), 2 * width);
    EXPECT_EQ(RowBytes(kRowsBF16, width), 2 * width);
    EXPECT_EQ(RowBytes(kRowsInt8, width), 4 + (width + 3) / 4 * 4);
    EXPECT_EQ(RowBytes(kRowsX8, width), (width + 3) / 4 * 4);
    EXPECT_EQ(RowBytes(kRowsX4, width), (width + 7) / 8 * 4);
    EXPECT_EQ(RowBytes(kRowsX2, width), (width + 15) / 16 * 4);
  }
}

TEST(RowFormat, RefusesWhatHasNoName) {
  EXPECT_KVC_ERROR((void)RowFormatFromName("int4"), kUsage, "int4");
  EXPECT_KVC_ERROR((void)RowFormatFromName("F16"), kUsage, "F16");
  EXPECT_KVC_ERROR((void)RowFormatFromName("avg3.1"), kUsage, "avg3.1");
  EXPECT_KVC_ERROR((void)RowFormatFromName("avg8"), kUsage, "avg8");
  EXPECT_KVC_ERROR((void)RowFormatOf(DType::kI8), kUnsupported, "I8");
  float row[4] = {};
  char bytes[64];
  for (const RowFormat& format :
       {RowFormat{RowElement::kInt8, RowScales::kNone, 0},
        RowFormat{RowElement::kInt8, RowScales::kFront, 32},
        RowFormat{RowElement::kF16, RowScales::kFront, 0},
        RowFormat{RowElement::kInt8, RowScales::kSteps, 0, 12}, MixedRows(0), MixedRows(32),
        RowFormat{static_cast<RowElement>(9), RowScales::kNone, 0}}) {
    EXPECT_KVC_ERROR((void)RowFormatName(format), kUnsupported, "row format");
    EXPECT_KVC_ERROR((void)RowBytes(format, 4), kUnsupported, "row format");
    EXPECT_KVC_ERROR((void)ElementBits(format), kUnsupported, "row format");
    EXPECT_KVC_ERROR(EncodeRows(ConstMatrixF(row, 1, 4), format, bytes, 16), kUnsupported,
                     "row format");
    EXPECT_KVC_ERROR(DecodeRows(bytes, format, 16, MatrixF(row, 1, 4)), kUnsupported, "row format");
  }
}

// Against the definition in double: codes are the nearest to x / scale, the error at most half a
// step, and what is decoded is scale times code.
TEST(RowFormat, Int8FollowsItsDefinition) {
  Rng rng(1);
  for (int64_t width = 1; width <= 150; width += 1 + width / 10) {
    for (const double magnitude : {1e-30, 1.0, 3e20}) {
      const std::vector<float> row = RandomRow(rng, width, magnitude);
      const std::vector<std::byte> bytes = Encoded(kRowsInt8, row);
      double largest = 0.0;
      for (const float x : row) largest = std::max(largest, std::abs(static_cast<double>(x)));
      float scale = 0.0F;
      std::memcpy(&scale, bytes.data(), sizeof(scale));
      EXPECT_NEAR(scale / (largest / 127.0), 1.0, 1e-7);
      const std::vector<float> decoded = Decoded(kRowsInt8, bytes, row.size());
      for (size_t i = 0; i < row.size(); ++i) {
        const auto code = std::bit_cast<int8_t>(bytes[4 + i]);
        const double exact = static_cast<double>(row[i]) / scale;
        ASSERT_LE(std::abs(code - exact), 0.5 + 1e-5) << "width " << width << ", element " << i;
        ASSERT_LE(std::abs(code), 127);
        ASSERT_EQ(decoded[i], scale * static_cast<float>(code));
      }
      for (size_t i = 4 + row.size(); i < bytes.size(); ++i) EXPECT_EQ(bytes[i], std::byte{0});
    }
  }
}

TEST(RowFormat, Int8RoundsTiesToEven) {
  // max |x| = 127: the scale is 1.
  const std::vector<float> row = {127.0F, 0.5F, 1.5F, 2.5F, -0.5F, -1.5F, -2.5F, -127.0F};
  const std::vector<float> expected = {127.0F, 0.0F, 2.0F, 2.0F, 0.0F, -2.0F, -2.0F, -127.0F};
  EXPECT_EQ(Decoded(kRowsInt8, Encoded(kRowsInt8, row), row.size()), expected);
}

TEST(RowFormat, Int8OfZerosAndOfTheSmallest) {
  const std::vector<float> zeros(9, 0.0F);
  EXPECT_EQ(Decoded(kRowsInt8, Encoded(kRowsInt8, zeros), 9), zeros);
  // Too small for a scale: nothing larger may come of it.
  const std::vector<float> tiny = {0x1.0p-149F, -0x1.0p-149F, 0.0F};
  for (const float x : Decoded(kRowsInt8, Encoded(kRowsInt8, tiny), 3)) {
    EXPECT_LE(std::abs(x), 0x1.0p-149F);
  }
  const std::vector<float> largest = {std::numeric_limits<float>::max(), 1.0F};
  EXPECT_NEAR(Decoded(kRowsInt8, Encoded(kRowsInt8, largest), 2)[0] / largest[0], 1.0, 1e-6);
}

TEST(RowFormat, Int8ShowsNumbersThatAreNone) {
  for (const float broken : {kNaN, -kNaN, kInfinity, -kInfinity}) {
    for (const size_t place : {0, 5, 10}) {
      std::vector<float> row(11, 2.0F);
      row[place] = broken;
      for (const float x : Decoded(kRowsInt8, Encoded(kRowsInt8, row), 11)) {
        EXPECT_TRUE(std::isnan(x));
      }
    }
  }
}

TEST(RowFormat, PlainRowsAreConvertedElements) {
  Rng rng(2);
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const RowFormat format = RowFormatOf(dtype);
    for (const int64_t width : {0, 1, 7, 64}) {
      std::vector<float> row = RandomRow(rng, width);
      if (width > 2) {
        row[1] = kInfinity;
        row[2] = kNaN;
      }
      std::vector<std::byte> expected(static_cast<size_t>(width * DTypeBytes(dtype)));
      ConvertFromFloat(row.data(), width, dtype, expected.data());
      EXPECT_EQ(Encoded(format, row), expected);
      std::vector<float> back(row.size());
      ConvertToFloat(dtype, expected.data(), width, back.data());
      const std::vector<float> decoded = Decoded(format, expected, row.size());
      ASSERT_EQ(decoded.size(), back.size());
      if (width == 0) continue;
      EXPECT_EQ(std::memcmp(decoded.data(), back.data(), back.size() * sizeof(float)), 0);
    }
  }
}

TEST(RowFormat, RoundedRowsAreWhatACacheGivesBack) {
  Rng rng(4);
  constexpr int64_t kWidth = 13;
  const std::vector<float> rows = RandomRow(rng, 3 * kWidth);
  for (const RowFormat& format : {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8}) {
    std::vector<float> rounded = rows;
    RoundRows({rounded.data(), 3, kWidth}, format);
    for (int64_t r = 0; r < 3; ++r) {
      const std::vector<float> row(rows.begin() + r * kWidth, rows.begin() + (r + 1) * kWidth);
      const std::vector<float> expected = Decoded(format, Encoded(format, row), kWidth);
      EXPECT_TRUE(std::equal(expected.begin(), expected.end(), rounded.begin() + r * kWidth));
    }
  }
}

// Rows lie `stride` bytes apart, what is between them is left alone, and a prefix of a stored row
// is read from its address.
TEST(RowFormat, StridesAndPrefixes) {
  Rng rng(3);
  for (const RowFormat& format : {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8}) {
    for (const int64_t count : {0, 1, 5}) {
      constexpr int64_t kWidth = 13;
      const std::vector<float> rows = RandomRow(rng, count * kWidth);
      const int64_t stride = RowBytes(format, kWidth) + 12;
      std::vector<std::byte> bytes(static_cast<size_t>(count * stride), std::byte{0x5a});
      EncodeRows({rows.data(), count, kWidth}, format, bytes.data(), stride);
      std::vector<float> prefix(static_cast<size_t>(count * 6));
      DecodeRows(bytes.data(), format, stride, {prefix.data(), count, 6});
      for (int64_t r = 0; r < count; ++r) {
        const std::vector<float> row(rows.begin() + r * kWidth, rows.begin() + (r + 1) * kWidth);
        const std::vector<std::byte> alone = Encoded(format, row);
        EXPECT_EQ(std::memcmp(bytes.data() + r * stride, alone.data(), alone.size()), 0);
        for (int64_t i = RowBytes(format, kWidth); i < stride; ++i) {
          EXPECT_EQ(bytes[r * stride + i], std::byte{0x5a});
        }
        const std::vector<float> whole = Decoded(format, alone, kWidth);
        for (int64_t i = 0; i < 6; ++i) EXPECT_EQ(prefix[r * 6 + i], whole[i]);
      }
    }
  }
}

TEST(RowFormat, CopyRowsKeepsBitsOrRequantises) {
  Rng rng(4);
  constexpr int64_t kWidth = 10;
  for (const RowFormat& from : {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8}) {
    for (const RowFormat& to : {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8}) {
      for (const int64_t width : {int64_t{1}, int64_t{7}, kWidth}) {
        std::vector<float> row = RandomRow(rng, kWidth);
        row[9] = 50.0F;  // sets the scale of the whole row, and not of its prefix
        const std::vector<std::byte> stored = Encoded(from, row);
        const int64_t bytes = RowBytes(to, width);
        std::vector<std::byte> copy(static_cast<size_t>(bytes));
        CopyRows(stored.data(), {from, kWidth, RowBytes(from, kWidth)}, 1, copy.data(),
                 {to, width, bytes});
        std::vector<float> held = Decoded(from, stored, kWidth);
        held.resize(static_cast<size_t>(width));
        if (from == to && (width == kWidth || from.scales == RowScales::kNone)) {
          EXPECT_EQ(std::memcmp(copy.data(), stored.data(), copy.size()), 0);
        } else {
          EXPECT_EQ(copy, Encoded(to, held));
        }
      }
    }
  }
  const StoredRows narrow = {kRowsF32, 4, 16};
  const StoredRows wide = {kRowsF32, 5, 20};
  EXPECT_KVC_ERROR(CopyRows(nullptr, narrow, 0, nullptr, wide), kInternal, "columns");
}

}  // namespace
}  // namespace kvc
