// Rows of codes with steps: x8, x4, x2 and their mixtures.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/row_format.h"
#include "tests/core/row_cases.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

using testing::Decoded;
using testing::Encoded;
using testing::kInfinity;
using testing::kNaN;
using testing::RandomRow;

constexpr std::array<RowFormat, 3> kWithSteps = {kRowsX8, kRowsX4, kRowsX2};

std::vector<float> RandomSteps(Rng& rng, int64_t width) {
  std::vector<float> steps(static_cast<size_t>(width));
  for (float& step : steps) step = static_cast<float>(0.05 + rng.NextDouble());
  return steps;
}

// The code in bits [bits * i, bits * (i + 1)) of a row, counted from its lowest.
int CodeAt(const std::vector<std::byte>& bytes, int64_t bits, int64_t i) {
  int code = 0;
  for (int64_t b = 0; b < bits; ++b) {
    const int64_t at = bits * i + b;
    code |= (static_cast<int>(bytes[at / 8]) >> (at % 8) & 1) << b;
  }
  return code;
}

// Against the definition in double, bit for bit; what is in range is off by half a step at most,
// what is beyond lands at the end of the range.
TEST(RowCodes, FollowTheirDefinition) {
  Rng rng(5);
  for (const RowFormat& format : kWithSteps) {
    const int64_t bits = ElementBits(format);
    const double half = std::pow(2.0, static_cast<double>(bits - 1));
    for (int64_t width = 1; width <= 70; width += 1 + width / 8) {
      const std::vector<float> row = RandomRow(rng, width, 0.4 * half);
      const std::vector<float> steps = RandomSteps(rng, width);
      std::vector<std::byte> bytes(static_cast<size_t>(RowBytes(format, width)), std::byte{0xee});
      EncodeRows({row.data(), 1, width}, format, bytes.data(), std::ssize(bytes), steps.data());
      std::vector<float> decoded(row.size());
      DecodeRows(bytes.data(), format, std::ssize(bytes), {decoded.data(), 1, width}, steps.data());
      for (int64_t i = 0; i < width; ++i) {
        const double scaled = std::floor(static_cast<double>(row[i] / steps[i]));
        const double code = std::clamp(scaled, -half, half - 1.0);
        ASSERT_EQ(CodeAt(bytes, bits, i), static_cast<int>(code + half)) << width << ", " << i;
        ASSERT_NEAR(decoded[i], (code + 0.5) * steps[i], 1e-5 * half);
        if (code == scaled) {
          ASSERT_LE(std::abs(decoded[i] - row[i]), 0.5001 * steps[i]);
        }
      }
      for (int64_t i = width; i < 8 * std::ssize(bytes) / bits; ++i) {
        ASSERT_EQ(CodeAt(bytes, bits, i), 0) << "bits behind the row";
      }
    }
  }
}

// The bytes of a mixture are those of its runs' formats, each run a row of its own but for the
// padding; what has no bits reads as zero.
TEST(RowCodes, MixturesAreRunsOfCodes) {
  Rng rng(7);
  constexpr std::array<RunEnds, 7> kEnds = {
      {{8, 16, 24}, {0, 8, 8}, {0, 0, 16}, {24, 24, 24}, {16, 16, 40}, {0, 40, 64}, {8, 8, 8}}};
  for (const RunEnds& ends : kEnds) {
    for (const int64_t width : {1, 7, 8, 13, 29, 40, 64, 70}) {
      const std::vector<float> row = RandomRow(rng, width, 2.0);
      const std::vector<float> table = RandomSteps(rng, 3 * width);
      const CodeSteps steps(table.data(), width, ends);
      const RowFormat format = MixedRows(12);
      std::vector<std::byte> expected;
      std::vector<float> numbers(row.size(), 0.0F);
      int64_t begin = 0;
      for (size_t i = 0; i < kWithSteps.size(); ++i) {
        const int64_t end = std::min<int64_t>(ends[i], width);
        const int64_t count = end - begin;
        const float* own = table.data() + static_cast<int64_t>(i) * width + begin;
        std::vector<std::byte> run(static_cast<size_t>(RowBytes(kWithSteps[i], count)));
        EncodeRows({row.data() + begin, 1, count}, kWithSteps[i], run.data(), std::ssize(run), own);
        DecodeRows(run.data(), kWithSteps[i], std::ssize(run), {numbers.data() + begin, 1, count},
                   own);
        run.resize(static_cast<size_t>((count * ElementBits(kWithSteps[i]) + 7) / 8));
        expected.insert(expected.end(), run.begin(), run.end());
        begin = end;
      }
      expected.resize((expected.size() + 3) / 4 * 4, std::byte{0});
      ASSERT_EQ(RowBytes(format, width, steps), std::ssize(expected));
      std::vector<std::byte> bytes(expected.size(), std::byte{0xee});
      EncodeRows({row.data(), 1, width}, format, bytes.data(), std::ssize(bytes), steps);
      EXPECT_EQ(bytes, expected) << "width " << width;
      std::vector<float> decoded(row.size(), 99.0F);
      DecodeRows(bytes.data(), format, std::ssize(bytes), {decoded.data(), 1, width}, steps);
      EXPECT_EQ(decoded, numbers) << "width " << width;
    }
  }
}

TEST(RowCodes, MixturesRefuseRunsThatAreNone) {
  const std::vector<float> table(96, 1.0F);  // [3, 32]
  const RowFormat format = MixedRows(12);
  for (const RunEnds& ends : {RunEnds{16, 8, 24}, RunEnds{-8, 8, 8}, RunEnds{0, 4, 8}}) {
    const CodeSteps steps(table.data(), 32, ends);
    EXPECT_KVC_ERROR((void)RowBytes(format, 32, steps), kInternal, "whole blocks of columns");
  }
  EXPECT_KVC_ERROR((void)RowBytes(format, 32), kInternal, "steps");
  EXPECT_KVC_ERROR((void)RunsOf(kRowsInt8, 32, table.data()), kUnsupported, "int8");
  std::vector<float> row(32, 1.0F);
  row[31] = kNaN;  // in a column that is not stored
  char bytes[32];
  EXPECT_KVC_ERROR(
      EncodeRows({row.data(), 1, 32}, format, bytes, 32, {table.data(), 32, RunEnds{8, 8, 8}}),
      kNumeric, "finite");
}

TEST(RowCodes, RefuseWhatTheyCannotHold) {
  const std::vector<float> steps(3, 1.0F);
  char bytes[16];
  float back[3];
  for (const RowFormat& format : kWithSteps) {
    for (const float broken : {kNaN, kInfinity, -kInfinity}) {
      const std::vector<float> row = {1.0F, broken, 0.0F};
      EXPECT_KVC_ERROR(EncodeRows({row.data(), 1, 3}, format, bytes, 4, steps.data()), kNumeric,
                       "finite");
    }
    EXPECT_KVC_ERROR(EncodeRows({steps.data(), 1, 3}, format, bytes, 4), kInternal, "steps");
    EXPECT_KVC_ERROR(DecodeRows(bytes, format, 4, {back, 1, 3}), kInternal, "steps");
  }
}

// Into codes, out of them, from one number of bits to another, and whole rows as they are.
TEST(RowCodes, CopyRowsKnowsSteps) {
  Rng rng(6);
  constexpr int64_t kWidth = 21;
  const std::vector<float> row = RandomRow(rng, kWidth, 3.0);
  const std::vector<float> steps = RandomSteps(rng, kWidth);
  const std::vector<float> coarse = RandomSteps(rng, kWidth);
  const auto encode = [&](const RowFormat& format, const std::vector<float>& numbers,
                          const std::vector<float>& with) {
    const auto width = static_cast<int64_t>(numbers.size());
    std::vector<std::byte> bytes(static_cast<size_t>(RowBytes(format, width)));
    EncodeRows({numbers.data(), 1, width}, format, bytes.data(), std::ssize(bytes), with.data());
    return bytes;
  };
  for (const RowFormat& from : {kRowsF32, kRowsX8, kRowsX4}) {
    for (const RowFormat& to : {kRowsBF16, kRowsX4, kRowsX2}) {
      for (const int64_t width : {int64_t{9}, kWidth}) {
        const std::vector<std::byte> stored = encode(from, row, steps);
        const std::vector<float>& own = from == to ? steps : coarse;
        std::vector<std::byte> copy(static_cast<size_t>(RowBytes(to, width)));
        CopyRows(stored.data(), {from, kWidth, std::ssize(stored), steps.data()}, 1, copy.data(),
                 {to, width, std::ssize(copy), own.data()});
        std::vector<float> held(static_cast<size_t>(width));
        DecodeRows(stored.data(), from, std::ssize(stored), {held.data(), 1, width}, steps.data());
        EXPECT_EQ(copy, encode(to, held, own));
      }
    }
  }
}

// Rows of a mixture move as they are, and become another's by way of their numbers.
TEST(RowCodes, CopyRowsKnowsMixtures) {
  Rng rng(8);
  constexpr int64_t kWidth = 37;
  const std::vector<float> row = RandomRow(rng, kWidth, 2.0);
  const std::vector<float> table = RandomSteps(rng, 3 * kWidth);
  const auto stored = [&](int32_t rate, const RunEnds& ends) {
    const CodeSteps steps(table.data(), kWidth, ends);
    return StoredRows{MixedRows(rate), kWidth, RowBytes(MixedRows(rate), kWidth, steps), steps};
  };
  const StoredRows rich = stored(12, {8, 24, 40});
  const StoredRows poor = stored(5, {0, 8, 24});
  const auto encode = [&](const std::vector<float>& numbers, const StoredRows& as) {
    std::vector<std::byte> bytes(static_cast<size_t>(as.stride));
    EncodeRows({numbers.data(), 1, kWidth}, as.format, bytes.data(), as.stride, as.steps);
    return bytes;
  };
  const std::vector<std::byte> bytes = encode(row, rich);
  std::vector<std::byte> same(bytes.size());
  CopyRows(bytes.data(), rich, 1, same.data(), rich);
  EXPECT_EQ(same, bytes);
  std::vector<float> held(row.size());
  DecodeRows(bytes.data(), rich.format, rich.stride, {held.data(), 1, kWidth}, rich.steps);
  std::vector<std::byte> fewer(static_cast<size_t>(poor.stride));
  CopyRows(bytes.data(), rich, 1, fewer.data(), poor);
  EXPECT_EQ(fewer, encode(held, poor));
}

}  // namespace
}  // namespace kvc
