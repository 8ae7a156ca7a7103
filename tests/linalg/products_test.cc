#include "linalg/products.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::linalg {
namespace {

// A float matrix whose rows lie `gap` elements apart; what lies between is NaN.
struct Strided {
  std::vector<float> values;
  int64_t rows, cols, stride;
  Strided(Rng& rng, int64_t r, int64_t c, int64_t gap) : rows(r), cols(c), stride(c + gap) {
    values.assign(static_cast<size_t>(rows * stride), std::numeric_limits<float>::quiet_NaN());
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < cols; ++j) {
        values[i * stride + j] = static_cast<float>(rng.NextNormal());
      }
    }
  }
  [[nodiscard]] ConstMatrixF view() const { return {values.data(), rows, cols, stride}; }
  [[nodiscard]] MatrixF view() { return {values.data(), rows, cols, stride}; }
};

struct Sum {
  double value = 0.0;
  double magnitude = 0.0;  // sum of absolute terms
  void Add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

// |float sum of n products - exact| <= n u sum |terms| in any order (Higham 2002, section 4.2).
void ExpectNear(float actual, const Sum& sum, int64_t terms) {
  const double bound = static_cast<double>(terms + 2) * 0x1p-24 * sum.magnitude + 1e-37;
  ASSERT_LE(std::abs(actual - sum.value), bound);
}

TEST(Products, MatchDouble) {
  Rng rng(11);
  for (const int64_t depth : {0, 1, 64, 129}) {
    const Strided a(rng, 13, depth, 2);
    const Strided nt(rng, 9, depth, 1);
    const Strided nn(rng, depth, 9, 4);
    for (const bool accumulate : {false, true}) {
      const Strided start(rng, 13, 9, 6);
      Strided c_nt = start;
      Strided c_nn = start;
      GemmNT(0.5F, a.view(), nt.view(), accumulate, c_nt.view());
      GemmNN(a.view(), nn.view(), accumulate, c_nn.view());
      for (int64_t m = 0; m < 13; ++m) {
        for (int64_t n = 0; n < 9; ++n) {
          Sum by_row;
          Sum by_col;
          by_row.Add(accumulate ? start.view()(m, n) : 0.0);
          by_col.Add(accumulate ? start.view()(m, n) : 0.0);
          for (int64_t k = 0; k < depth; ++k) {
            by_row.Add(0.5 * a.view()(m, k) * nt.view()(n, k));
            by_col.Add(static_cast<double>(a.view()(m, k)) * nn.view()(k, n));
          }
          ExpectNear(c_nt.view()(m, n), by_row, depth);
          ExpectNear(c_nn.view()(m, n), by_col, depth);
        }
      }
    }
  }
}

TEST(Products, RefuseSizesThatDisagree) {
  Rng rng(12);
  const Strided a(rng, 2, 3, 0);
  Strided c(rng, 2, 2, 0);
  EXPECT_KVC_ERROR(GemmNN(a.view(), a.view(), false, c.view()), kBadShape,
                   "GemmNN: expected sizes");
  Strided wide(rng, 2, 3, 0);
  EXPECT_KVC_ERROR(GemmNT(1.0F, a.view(), a.view(), false, wide.view()), kBadShape,
                   "GemmNT: expected sizes that agree, got A [2, 3], B [2, 3], C [2, 3]");
}

}  // namespace
}  // namespace kvc::linalg
