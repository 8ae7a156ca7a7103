#include "linalg/gram.h"

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "kernels/cpu/simd_targets.h"
#include "linalg/svd.h"

namespace kvc::linalg::detail {
namespace {

// Compares every element with a sum in double, within the rounding error of its slices in float.
void CheckGramOf(int64_t rows, int64_t cols, int64_t stride) {
  Rng rng(rows * 1000 + cols);
  std::vector<float> values((rows - 1) * stride + cols);
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  const ConstMatrixF a(values.data(), rows, cols, stride);
  const Matrix gram = GramOf(a);
  ASSERT_EQ(gram.rows, rows);
  ASSERT_EQ(gram.cols, rows);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < rows; ++c) {
      double sum = 0.0;
      double sizes = 0.0;
      for (int64_t k = 0; k < cols; ++k) {
        const double product = static_cast<double>(a(r, k)) * a(c, k);
        sum += product;
        sizes += std::abs(product);
      }
      ASSERT_NEAR(gram(r, c), sum, static_cast<double>(kGramSlice) * 0x1p-24 * sizes)
          << rows << " x " << cols << " at " << r << ", " << c;
      ASSERT_EQ(gram(r, c), gram(c, r));
    }
  }
}

// Tiles of four rows, lines of 16 columns and slices of 512 that do not come out even.
TEST(Gram, EveryInstructionSetAgreesWithLoops) {
  for (const int64_t target : kernels::SupportedSimdTargets()) {
    SCOPED_TRACE(kernels::SimdTargetName(target));
    kernels::UseSimdTarget(target);
    CheckGramOf(1, 1, 1);
    CheckGramOf(3, 16, 20);
    CheckGramOf(4, 512, 512);
    CheckGramOf(5, 513, 513);
    CheckGramOf(9, 1551, 1600);
    CheckGramOf(130, 1024, 1024);
  }
  kernels::UseSimdTarget(0);
}

}  // namespace
}  // namespace kvc::linalg::detail
