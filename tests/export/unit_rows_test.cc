// The coordinates of a latent in which rows of its rebuild are unit vectors: the same keys, as many
// unit rows as dimensions, small other rows, and what is left alone.

#include "export/onnx/unit_rows.h"

#include <cmath>
#include <set>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::onnx_export {
namespace {

std::vector<float> Normal(Rng& rng, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

// Element [row, column] of B_group A_group^T and the sum of the absolute products in it.
struct Product {
  double value = 0.0;
  double magnitude = 0.0;
};
Product Entry(const LatentFactors& factors,
              int64_t row,
              int64_t stride,
              int64_t first,
              int64_t rank,
              int64_t column,
              int64_t width) {
  Product sum;
  for (int64_t r = 0; r < rank; ++r) {
    const double b = factors.rebuild[static_cast<size_t>(row * stride + r)];
    const double a = factors.latent[static_cast<size_t>((first + r) * width + column)];
    sum.value += b * a;
    sum.magnitude += std::abs(b * a);
  }
  return sum;
}

// Which rows first .. end - 1 are unit vectors, as the columns of their ones.
std::multiset<int64_t> UnitColumns(
    const std::vector<float>& rebuild, int64_t first, int64_t end, int64_t stride, int64_t rank) {
  std::multiset<int64_t> columns;
  for (int64_t row = first; row < end; ++row) {
    int64_t zeros = 0;
    int64_t one = -1;
    for (int64_t r = 0; r < rank; ++r) {
      const float value = rebuild[static_cast<size_t>(row * stride + r)];
      zeros += value == 0.0F ? 1 : 0;
      if (value == 1.0F) one = r;
    }
    if (one >= 0 && zeros == rank - 1) columns.insert(one);
  }
  return columns;
}

TEST(MakeUnitRows, SameKeysWithAUnitRowForEachDimension) {
  Rng rng(1);
  const std::vector<int64_t> ranks = {5, 1, 7};
  const int64_t rows = 16;
  const int64_t stride = 7;
  const int64_t width = 9;
  const LatentFactors before{Normal(rng, 13 * width), Normal(rng, 3 * rows * stride)};
  LatentFactors after = before;
  MakeUnitRows(ranks, after);
  int64_t first = 0;
  for (int64_t group = 0; group < 3; ++group) {
    const int64_t rank = ranks[static_cast<size_t>(group)];
    std::multiset<int64_t> all;
    for (int64_t r = 0; r < rank; ++r) all.insert(r);
    EXPECT_EQ(UnitColumns(after.rebuild, group * rows, (group + 1) * rows, stride, rank), all);
    for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
      for (int64_t c = 0; c < width; ++c) {
        const Product expected = Entry(before, row, stride, first, rank, c, width);
        const Product actual = Entry(after, row, stride, first, rank, c, width);
        // Both factors were rounded to float once.
        EXPECT_NEAR(actual.value, expected.value, 2.1 * 0x1.0p-24 * actual.magnitude + 1e-12);
      }
      for (int64_t r = 0; r < stride; ++r) {
        const float value = after.rebuild[static_cast<size_t>(row * stride + r)];
        if (r >= rank) {
          EXPECT_EQ(value, before.rebuild[static_cast<size_t>(row * stride + r)]);
        }
        // Pivoting: a row has at most as much outside the span of those before as the one chosen.
        EXPECT_LE(std::abs(value), r < rank ? std::ldexp(1.0, static_cast<int>(rank)) : HUGE_VALF);
      }
    }
    first += rank;
  }
}

TEST(MakeUnitRows, LeavesAGroupWhoseRowsDoNotSpanItsLatent) {
  Rng rng(2);
  // The first group has three columns and two rows; in the second all rows are one row's multiples.
  LatentFactors few{Normal(rng, 3 * 4), Normal(rng, 2 * 3)};
  const LatentFactors same = few;
  MakeUnitRows(std::vector<int64_t>{3}, few);
  EXPECT_EQ(few.rebuild, same.rebuild);
  EXPECT_EQ(few.latent, same.latent);
  LatentFactors parallel{Normal(rng, 2 * 4), {1, 2, 2, 4, -3, -6}};
  const LatentFactors kept = parallel;
  MakeUnitRows(std::vector<int64_t>{2}, parallel);
  EXPECT_EQ(parallel.rebuild, kept.rebuild);
  EXPECT_EQ(parallel.latent, kept.latent);
  LatentFactors nan{{1, 2}, {std::nanf(""), 1, 2}};
  MakeUnitRows(std::vector<int64_t>{1}, nan);
  EXPECT_TRUE(std::isnan(nan.rebuild[0]));
}

TEST(MakeUnitRows, RefusesFactorsThatDoNotFit) {
  LatentFactors factors{{1, 2, 3}, {1, 2, 3, 4}};
  EXPECT_KVC_ERROR(MakeUnitRows(std::vector<int64_t>{2}, factors), kInternal, "latent factors");
}

}  // namespace
}  // namespace kvc::onnx_export
