#include "core/cache/bit_spread.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"

namespace kvc {
namespace {

// Errors of columns that fall with the column, by a factor for each bit, with some noise.
std::vector<float> RandomErrors(Rng& rng, int64_t width, double unit) {
  std::vector<float> errors(static_cast<size_t>(kErrorLevels * width));
  for (int64_t i = 0; i < width; ++i) {
    const double variance =
        unit * std::exp(-0.15 * static_cast<double>(i)) * (0.5 + rng.NextDouble());
    const double bits[] = {8.0, 4.0, 2.0, 0.0};
    for (int64_t level = 0; level < kErrorLevels; ++level) {
      const double left = std::pow(4.0, -0.9 * bits[level]);
      errors[level * width + i] = static_cast<float>(variance * left);
    }
  }
  return errors;
}

int BitsOf(const RunEnds& ends, int64_t column) {
  for (size_t i = 0; i < ends.size(); ++i) {
    if (column < ends[i]) return kCodeBits[i];
  }
  return 0;
}

double ErrorOf(const ColumnErrors& row, const RunEnds& ends) {
  double error = 0.0;
  for (int64_t i = 0; i < row.width; ++i) {
    const int bits = BitsOf(ends, i);
    const int64_t level = bits == 8 ? 0 : bits == 4 ? 1 : bits == 2 ? 2 : 3;
    error += row.errors[level * row.width + i];
  }
  return error;
}

int64_t StoredBits(const ColumnErrors& row, const RunEnds& ends) {
  int64_t bits = 0;
  for (int64_t i = 0; i < row.width; ++i) bits += BitsOf(ends, i);
  return (bits + 31) / 32 * 32;
}

// All runs that a row of `width` columns may have.
std::vector<RunEnds> EveryRuns(int64_t width) {
  const auto blocks = static_cast<int32_t>((width + 7) / 8);
  std::vector<RunEnds> all;
  for (int32_t a = 0; a <= blocks; ++a) {
    for (int32_t b = a; b <= blocks; ++b) {
      for (int32_t c = std::max(b, 1); c <= blocks; ++c) all.push_back({8 * a, 8 * b, 8 * c});
    }
  }
  return all;
}

// Of two rows, against all pairs of runs within the bits: the price leaves a gap of a block at
// most, so that the result is no worse than the best with one block less.
TEST(BitSpread, IsTheBestButForABlock) {
  Rng rng(1);
  for (const int64_t width : {16, 40, 33}) {
    const std::vector<float> first = RandomErrors(rng, width, 1.0);
    const std::vector<float> second = RandomErrors(rng, 24, 30.0);
    const std::vector<ColumnErrors> rows = {{first.data(), width}, {second.data(), 24}};
    for (const int32_t rate : {2, 4, 6, 8, 12, 16, 23, 31}) {
      const std::vector<RunEnds> ends = SpreadBits(rows, rate);
      ASSERT_EQ(ends.size(), 2U);
      const int64_t budget = (width + 24) * rate / 4;
      const double error = ErrorOf(rows[0], ends[0]) + ErrorOf(rows[1], ends[1]);
      const int64_t bits = StoredBits(rows[0], ends[0]) + StoredBits(rows[1], ends[1]);
      EXPECT_LE(bits, std::max<int64_t>(budget, 64)) << "width " << width << ", rate " << rate;
      double best = std::numeric_limits<double>::infinity();  // with a block of 8 bits less
      for (const RunEnds& a : EveryRuns(width)) {
        for (const RunEnds& b : EveryRuns(24)) {
          if (StoredBits(rows[0], a) + StoredBits(rows[1], b) > budget - 64) continue;
          best = std::min(best, ErrorOf(rows[0], a) + ErrorOf(rows[1], b));
        }
      }
      EXPECT_LE(error, best * (1.0 + 1e-6)) << "width " << width << ", rate " << rate;
    }
  }
}

TEST(BitSpread, MoreBitsAreNeverWorse) {
  Rng rng(2);
  const std::vector<float> errors = RandomErrors(rng, 64, 1.0);
  const std::vector<ColumnErrors> rows = {{errors.data(), 64}};
  double last = std::numeric_limits<double>::infinity();
  for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
    const RunEnds ends = SpreadBits(rows, rate)[0];
    EXPECT_TRUE(std::ranges::is_sorted(ends));
    for (const int32_t end : ends) EXPECT_EQ(end % kColumnBlock, 0);
    EXPECT_GT(ends.back(), 0);
    const double error = ErrorOf(rows[0], ends);
    EXPECT_LE(error, last);
    last = error;
  }
}

// Dead columns, as behind a narrow head's, take no bits and count for none; a dead row has its two
// bits.
TEST(BitSpread, ColumnsOfZerosDoNotCount) {
  Rng rng(3);
  const std::vector<float> narrow = RandomErrors(rng, 16, 1.0);
  std::vector<float> padded(kErrorLevels * 64, 0.0F);
  for (int64_t level = 0; level < kErrorLevels; ++level) {
    std::copy_n(narrow.begin() + level * 16, 16, padded.begin() + level * 64);
  }
  const std::vector<float> dead(kErrorLevels * 64, 0.0F);
  const std::vector<ColumnErrors> alone = {{narrow.data(), 16}};
  const std::vector<ColumnErrors> wide = {{padded.data(), 64}};
  const std::vector<ColumnErrors> zeros = {{dead.data(), 64}};
  for (int32_t rate = 1; rate <= kMixedRates; ++rate) {
    EXPECT_EQ(SpreadBits(wide, rate), SpreadBits(alone, rate)) << rate;
    EXPECT_EQ(SpreadBits(zeros, rate), (std::vector<RunEnds>{{0, 0, 8}}));
  }
}

}  // namespace
}  // namespace kvc
