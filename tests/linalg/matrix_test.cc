#include "linalg/matrix.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/linalg/random_matrix.h"

namespace kvc::linalg {
namespace {

// Both products against loops, for sizes without rows, columns or an inner dimension too.
TEST(Matrix, ProductsMatchLoops) {
  for (const auto& [rows, inner, cols] :
       {std::tuple{3, 5, 4}, {1, 1, 1}, {0, 5, 4}, {3, 0, 4}, {3, 5, 0}, {40, 33, 17}}) {
    const Matrix a = RandomMatrix(rows, inner, 1);
    const Matrix b = RandomMatrix(inner, cols, 2);
    const Matrix product = Multiply(a.view(), b.view());
    const Matrix transposed = MultiplyTransposed(a.view(), Transpose(b.view()).view());
    ASSERT_EQ(product.rows, rows);
    ASSERT_EQ(product.cols, cols);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        double sum = 0.0;
        double magnitude = 0.0;
        for (int64_t k = 0; k < inner; ++k) {
          sum += a(r, k) * b(k, c);
          magnitude += std::abs(a(r, k) * b(k, c));
        }
        const double bound = 2.0 * (inner + 1) * 0x1p-53 * magnitude;
        EXPECT_LE(std::abs(product(r, c) - sum), bound);
        EXPECT_LE(std::abs(transposed(r, c) - sum), bound);
      }
    }
  }
}

TEST(Matrix, TransposeCrossesTiles) {
  const Matrix a = RandomMatrix(70, 45, 3);  // tiles are 32 columns wide
  const Matrix t = Transpose(a.view());
  ASSERT_EQ(t.rows, 45);
  for (int64_t r = 0; r < a.rows; ++r) {
    for (int64_t c = 0; c < a.cols; ++c) ASSERT_EQ(t(c, r), a(r, c));
  }
}

TEST(Matrix, EnergyIsTheTraceOfTheForm) {
  const Matrix a = RandomMatrix(4, 6, 4);
  const Matrix root = RandomMatrix(6, 6, 5);
  const Matrix g = MultiplyTransposed(root.view(), root.view());
  double expected = 0.0;
  double magnitude = 0.0;
  for (int64_t r = 0; r < 4; ++r) {
    for (int64_t i = 0; i < 6; ++i) {
      for (int64_t j = 0; j < 6; ++j) {
        expected += a(r, i) * g(i, j) * a(r, j);
        magnitude += std::abs(a(r, i) * g(i, j) * a(r, j));
      }
    }
  }
  EXPECT_NEAR(Energy(a.view(), g.view()), expected, 200 * 0x1p-53 * magnitude);
}

}  // namespace
}  // namespace kvc::linalg
