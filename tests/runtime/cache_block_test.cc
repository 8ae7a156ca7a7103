#include <limits>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/host_device.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

BlockShape Shape(const RowFormat& format) {
  BlockShape shape;
  shape.key_format = format;
  shape.value_format = format;
  shape.key_width = 3;
  shape.value_width = 5;
  shape.heads = 2;
  shape.positions = true;
  shape.scores = true;
  return shape;
}

std::vector<float> Random(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

std::vector<float> RowOf(const kernels::RowBlock& block, int64_t row) {
  std::vector<float> values(static_cast<size_t>(block.width));
  DecodeRows(static_cast<const std::byte*>(block.data) + row * block.stride, block.format,
             block.stride, {values.data(), 1, block.width});
  return values;
}

// What floats become as a row of the block.
std::vector<float> Rounded(const float* values, int64_t count, const RowFormat& format) {
  const int64_t bytes = RowBytes(format, count);
  std::vector<std::byte> row(static_cast<size_t>(bytes));
  EncodeRows({values, 1, count}, format, row.data(), bytes);
  std::vector<float> result(static_cast<size_t>(count));
  DecodeRows(row.data(), format, bytes, {result.data(), 1, count});
  return result;
}

// Heads of a group whose mixtures differ have rows of their own lengths.
TEST(CacheBlock, PlanesAreAsWideAsTheirMixtures) {
  const std::vector<float> steps(3 * 16, 0.5F);
  BlockShape shape;
  shape.key_width = 1;
  shape.value_format = MixedRows(12);
  shape.value_width = 16;
  shape.heads = 2;
  shape.value_steps = {{steps.data(), 16, {16, 16, 16}}, {steps.data(), 16, {0, 0, 8}}};
  EXPECT_EQ(shape.ValueRowBytes(0), 16);
  EXPECT_EQ(shape.ValueRowBytes(1), 4);
  EXPECT_EQ(shape.BytesPerRow(), 4 + 16 + 4);
  CacheMeter meter;
  CacheBlock block(shape, 3, SharedHostDevice(), meter);
  EXPECT_EQ(meter.live_bytes(), 3 * (4 + 16 + 4));
  const std::vector<float> keys(3, 1.0F);
  std::vector<float> values(3 * 32);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i % 7) / 7.0F - 0.4F;
  AppendRows({keys.data(), 3, 1}, {values.data(), 3, 32}, 0, block);
  const auto row = [&](const CacheBlock& of, int64_t plane, int64_t t) {
    const kernels::RowBlock rows = ValuesOf(of, plane);
    std::vector<float> result(16);
    DecodeRows(static_cast<const std::byte*>(rows.data) + t * rows.stride, rows.format, rows.stride,
               {result.data(), 1, 16}, rows.steps);
    return result;
  };
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t i = 0; i < 16; ++i) {
      EXPECT_NEAR(row(block, 0, t)[i], values[t * 32 + i], 0.25 + 1e-6);
      // Two bits in steps of a half, and no bits.
      const float expected = i < 8 ? values[t * 32 + 16 + i] : 0.0F;
      EXPECT_NEAR(row(block, 1, t)[i], expected, 0.25 + 1e-6);
    }
  }
  const std::vector<int64_t> kept = {0, 2};
  const CacheBlock copy = block.Clone(meter);
  KeepRows(kept, block);
  block.Reserve(2, meter);
  for (int64_t plane = 0; plane < 2; ++plane) {
    EXPECT_EQ(row(block, plane, 0), row(copy, plane, 0));
    EXPECT_EQ(row(block, plane, 1), row(copy, plane, 2));
  }
}

class CacheBlockTest : public ::testing::TestWithParam<RowFormat> {
 protected:
  static constexpr int64_t kRows = 7;
  // Key rows are wider than the block keeps.
  static constexpr int64_t kKeyStride = 4;
  CacheBlockTest()
      : keys_(Random(kRows * kKeyStride, 1)),
        values_(Random(kRows * 10, 2)),
        block_(Shape(GetParam()), 9, SharedHostDevice(), meter_) {
    AppendRows(Keys(0, 4), Values(0, 4), 20, block_);
    AppendRows(Keys(4, 3), Values(4, 3), 24, block_);
    std::vector<float> scores(kRows);
    std::iota(scores.begin(), scores.end(), 0.0F);
    block_.SetScores(scores);
  }
  [[nodiscard]] ConstMatrixF Keys(int64_t first, int64_t rows) const {
    return {keys_.data() + first * kKeyStride, rows, kKeyStride};
  }
  [[nodiscard]] ConstMatrixF Values(int64_t first, int64_t rows) const {
    return {values_.data() + first * 10, rows, 10};
  }
  // Row `row` of `block` holds what was appended as row `source`.
  void ExpectRow(const CacheBlock& block, int64_t row, int64_t source) const {
    EXPECT_EQ(RowOf(KeysOf(block), row), Rounded(Keys(source, 1).data, 3, GetParam()));
    for (int64_t plane = 0; plane < 2; ++plane) {
      EXPECT_EQ(RowOf(ValuesOf(block, plane), row),
                Rounded(Values(source, 1).data + plane * 5, 5, GetParam()));
    }
    EXPECT_EQ(block.positions()[row], 20 + source);
    EXPECT_EQ(block.Scores()[row], static_cast<float>(source));
  }

  CacheMeter meter_;
  std::vector<float> keys_;
  std::vector<float> values_;
  CacheBlock block_;
};

TEST_P(CacheBlockTest, AppendRoundsToTheFormat) {
  ASSERT_EQ(block_.rows(), kRows);
  for (int64_t i = 0; i < kRows; ++i) ExpectRow(block_, i, i);
  EXPECT_KVC_ERROR(AppendRows(Keys(0, 3), Values(0, 3), 0, block_), kInternal,
                   "room for 3 rows, got 2");
}

TEST_P(CacheBlockTest, MeterCountsEveryByte) {
  const int64_t row_bytes = RowBytes(GetParam(), 3) + 2 * RowBytes(GetParam(), 5) + 4 + 2;
  EXPECT_EQ(block_.shape().BytesPerRow(), row_bytes);
  EXPECT_EQ(meter_.live_bytes(), 9 * row_bytes);
  {
    const CacheBlock copy = block_.Clone(meter_);
    EXPECT_EQ(meter_.live_bytes(), 18 * row_bytes);
  }
  EXPECT_EQ(meter_.live_bytes(), 9 * row_bytes);
  EXPECT_EQ(meter_.peak_bytes(), 18 * row_bytes);
  block_ = CacheBlock();
  EXPECT_EQ(meter_.live_bytes(), 0);
}

TEST_P(CacheBlockTest, ReserveAndCloneKeepRows) {
  block_.Reserve(64, meter_);
  EXPECT_EQ(block_.capacity(), 64);
  for (int64_t i = 0; i < kRows; ++i) ExpectRow(block_, i, i);
  block_.Reserve(kRows, meter_);
  EXPECT_TRUE(block_.full());
  const CacheBlock copy = block_.Clone(meter_);
  DropFront(kRows, block_);
  for (int64_t i = 0; i < kRows; ++i) ExpectRow(copy, i, i);
  EXPECT_KVC_ERROR(CacheBlock(copy.Clone(meter_)).Reserve(3, meter_), kInternal, "at least 7");
}

TEST_P(CacheBlockTest, KeepAndDropFront) {
  const std::vector<int64_t> kept = {0, 3, 4, 6};
  KeepRows(kept, block_);
  ASSERT_EQ(block_.rows(), 4);
  for (int64_t i = 0; i < 4; ++i) ExpectRow(block_, i, kept[i]);
  DropFront(1, block_);
  ASSERT_EQ(block_.rows(), 3);
  for (int64_t i = 0; i < 3; ++i) ExpectRow(block_, i, kept[i + 1]);
  DropFront(0, block_);
  EXPECT_EQ(block_.rows(), 3);
  KeepRows({}, block_);
  EXPECT_EQ(block_.rows(), 0);
}

TEST_P(CacheBlockTest, AppendRowTakesAPrefix) {
  BlockShape narrow = Shape(GetParam());
  narrow.key_width = 2;
  narrow.value_width = 1;
  CacheBlock tier(narrow, 2, SharedHostDevice(), meter_);
  AppendRow(block_, 5, 0.5F, tier);
  // What the row holds, encoded again: with plain elements the same numbers.
  const std::vector<float> key = RowOf(KeysOf(block_), 5);
  const std::vector<float> value = RowOf(ValuesOf(block_, 1), 5);
  EXPECT_EQ(RowOf(KeysOf(tier), 0), Rounded(key.data(), 2, GetParam()));
  EXPECT_EQ(RowOf(ValuesOf(tier, 1), 0), Rounded(value.data(), 1, GetParam()));
  EXPECT_EQ(tier.positions()[0], 25);
  EXPECT_EQ(tier.Scores()[0], 0.5F);
}

TEST_P(CacheBlockTest, ScoresAreRoundedAndOnlyInfinityIsInfinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  block_.SetScores(std::vector<float>{1.0F / 3.0F, std::numeric_limits<float>::max(), infinity,
                                      -std::numeric_limits<float>::max(), 0.0F});
  const std::vector<float> scores = block_.Scores();
  ASSERT_EQ(std::ssize(scores), kRows);
  EXPECT_EQ(scores[0], 0.333984375F);
  EXPECT_GT(scores[1], 3.38e38F);
  EXPECT_LT(scores[1], infinity);
  EXPECT_EQ(scores[2], infinity);
  EXPECT_GT(scores[3], -infinity);
  EXPECT_EQ(scores[4], 0.0F);
  EXPECT_EQ(scores[5], 5.0F) << "the others stay";
}

TEST_P(CacheBlockTest, NoRowsTakeNoMemory) {
  CacheMeter meter;
  CacheBlock empty(Shape(GetParam()), 0, SharedHostDevice(), meter);
  EXPECT_EQ(meter.live_bytes(), 0);
  EXPECT_TRUE(empty.full());
  EXPECT_EQ(KeysOf(empty).rows, 0);
}

// Keys and values, and the two blocks of a move, each in a format of their own.
TEST(CacheBlock, FormatsOfTheirOwn) {
  CacheMeter meter;
  BlockShape shape = Shape(kRowsF32);
  shape.value_format = kRowsInt8;
  CacheBlock block(shape, 2, SharedHostDevice(), meter);
  EXPECT_EQ(meter.live_bytes(), 2 * (RowBytes(kRowsF32, 3) + 2 * RowBytes(kRowsInt8, 5) + 6));
  const std::vector<float> keys = Random(3, 1);
  const std::vector<float> values = Random(10, 2);
  AppendRows({keys.data(), 1, 3}, {values.data(), 1, 10}, 0, block);
  EXPECT_EQ(RowOf(KeysOf(block), 0), keys);
  EXPECT_EQ(RowOf(ValuesOf(block, 1), 0), Rounded(values.data() + 5, 5, kRowsInt8));
  CacheBlock tier(Shape(kRowsInt8), 1, SharedHostDevice(), meter);
  AppendRow(block, 0, 1.0F, tier);
  EXPECT_EQ(RowOf(KeysOf(tier), 0), Rounded(keys.data(), 3, kRowsInt8));
  EXPECT_EQ(RowOf(ValuesOf(tier, 1), 0), RowOf(ValuesOf(block, 1), 0));
}

INSTANTIATE_TEST_SUITE_P(Formats,
                         CacheBlockTest,
                         ::testing::Values(kRowsF32, kRowsF16, kRowsBF16, kRowsInt8),
                         [](const auto& test) { return std::string(RowFormatName(test.param)); });

}  // namespace
}  // namespace kvc::runtime
