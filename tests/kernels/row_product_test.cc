// Products of rows against double precision.

#include "kernels/row_product.h"

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/dtype.h"
#include "core/base/rng.h"
#include "kernels/output_rows.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

// Random rows, `stride` apart; the gaps are NaN.
struct Rows {
  std::vector<float> data;
  MatrixF view;

  Rows(Rng& rng, int64_t rows, int64_t cols, int64_t gap)
      : data(static_cast<size_t>(rows * (cols + gap)), std::numeric_limits<float>::quiet_NaN()),
        view(data.data(), rows, cols, cols + gap) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) view(r, c) = static_cast<float>(rng.NextNormal());
    }
  }
};

double Rounded(float x) { return BF16ToFloat(FloatToBF16(x)); }

// Expects `exact` to be x w^T, and `rounded` that or the product of rounded numbers.
void ExpectProducts(const Rows& x, const Rows& w, const Rows& exact, const Rows& rounded) {
  const int64_t m = x.view.rows, n = w.view.rows, k = x.view.cols;
  const double room = 1e-6 * (4.0 + static_cast<double>(k));
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0.0;
      double of_rounded = 0.0;
      for (int64_t d = 0; d < k; ++d) {
        sum += static_cast<double>(x.view(i, d)) * w.view(j, d);
        of_rounded += Rounded(x.view(i, d)) * Rounded(w.view(j, d));
      }
      ASSERT_NEAR(exact.view(i, j), sum, room) << m << " " << n << " " << k;
      const double error =
          std::min(std::abs(rounded.view(i, j) - sum), std::abs(rounded.view(i, j) - of_rounded));
      ASSERT_LE(error, room) << m << " " << n << " " << k;
    }
  }
}

// Sizes at and off the edges of blocks. What is rounded differs from floats by 2^-8 of the numbers;
// where the processor rounds, sums of rounded numbers are met far closer.
TEST(MultiplyRows, EqualsReference) {
  Rng rng(1);
  for (const int64_t m : {1, 16, 40, 193}) {
    for (const int64_t n : {1, 32, 70, 257}) {
      for (const int64_t k : {1, 24, 64, 513}) {
        const Rows x(rng, m, k, 3);
        const Rows w(rng, n, k, 0);
        const Rows exact(rng, m, n, 5);
        const Rows rounded(rng, m, n, 0);
        MultiplyRows(x.view, w.view, InputRounding::kNone, exact.view);
        MultiplyRows(x.view, w.view, InputRounding::kToBF16, rounded.view);
        ASSERT_NO_FATAL_FAILURE(ExpectProducts(x, w, exact, rounded));
      }
    }
  }
}

// A row's numbers do not depend on the rows beside it.
TEST(MultiplyRows, RowsStandAlone) {
  Rng rng(2);
  const Rows x(rng, 100, 64, 0);
  const Rows w(rng, 300, 64, 0);
  const Rows all(rng, 100, 300, 0);
  const Rows one(rng, 37, 300, 0);
  MultiplyRows(x.view, w.view, InputRounding::kToBF16, all.view);
  MultiplyRows(x.view.RowRange(20, 37), w.view, InputRounding::kToBF16, one.view);
  for (int64_t i = 0; i < 37; ++i) {
    for (int64_t j = 0; j < 300; ++j) ASSERT_EQ(one.view(i, j), all.view(20 + i, j));
  }
}

TEST(MultiplyRows, KeepsNan) {
  Rng rng(3);
  const Rows x(rng, 64, 64, 0);
  const Rows w(rng, 64, 64, 0);
  const Rows y(rng, 64, 64, 0);
  x.view(5, 7) = std::numeric_limits<float>::quiet_NaN();
  MultiplyRows(x.view, w.view, InputRounding::kToBF16, y.view);
  EXPECT_TRUE(std::isnan(y.view(5, 0)));
  EXPECT_FALSE(std::isnan(y.view(6, 0)));
}

TEST(MultiplyRows, RefusesOtherSizes) {
  Rng rng(4);
  const Rows x(rng, 64, 64, 0);
  const Rows w(rng, 64, 63, 0);
  const Rows y(rng, 64, 64, 0);
  EXPECT_KVC_ERROR(MultiplyRows(x.view, w.view, InputRounding::kToBF16, y.view), kBadShape,
                   "sizes that agree");
}

TEST(RoundRows, IsWhatProductsSee) {
  Rng rng(5);
  const Rows x(rng, 3, 10, 2);
  const Rows same(rng, 3, 10, 0);
  for (int64_t i = 0; i < 3; ++i) std::copy_n(x.view.row(i), 10, same.view.row(i));
  RoundRows(InputRounding::kNone, x.view);
  for (int64_t i = 0; i < 30; ++i) EXPECT_EQ(x.view(i / 10, i % 10), same.view(i / 10, i % 10));
  RoundRows(InputRounding::kToBF16, x.view);
  for (int64_t i = 0; i < 30; ++i) {
    EXPECT_EQ(x.view(i / 10, i % 10), Rounded(same.view(i / 10, i % 10)));
  }
}

// With the least and the most bits behind the point: one becomes infinity, the other zero, where
// they are rounded as numbers are.
TEST(RoundRows, KeepsNan) {
  Rng rng(6);
  const Rows x(rng, 1, 37, 0);
  for (const uint32_t bits : {0x7f800001U, 0x7fffffffU, 0xff800001U, 0xffffffffU}) {
    for (int64_t i = 0; i < 37; ++i) x.view(0, i) = std::bit_cast<float>(bits);
    RoundRows(InputRounding::kToBF16, x.view);
    for (int64_t i = 0; i < 37; ++i) EXPECT_TRUE(std::isnan(x.view(0, i))) << bits << " " << i;
  }
}

// A query whose loss is not a number is not hidden by those behind it.
TEST(ReduceDropped, KeepsNan) {
  Rng rng(7);
  const Rows attention(rng, 3, 37, 0);
  const Rows crosses(rng, 3, 37, 0);
  const std::vector<float> norms(37, 4.0F);
  const std::vector<float> owns = {std::numeric_limits<float>::quiet_NaN(), 1.0F, 1.0F};
  for (int64_t i = 0; i < int64_t{3} * 37; ++i) attention.view(i / 37, i % 37) = 0.25F;
  for (const LossReduction reduction : {LossReduction::kMax, LossReduction::kSum}) {
    std::vector<float> sums(37, 0.0F);
    ReduceDropped({attention.view, crosses.view, norms, owns}, reduction, sums);
    for (const float sum : sums) EXPECT_TRUE(std::isnan(sum));
  }
}

}  // namespace
}  // namespace kvc::kernels
