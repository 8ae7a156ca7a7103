#include "linalg/basis.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::linalg {
namespace {

std::vector<float> RandomValues(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

constexpr int64_t kTokens = 9;
constexpr int64_t kWidth = 6;
// An element is at most a product of sums of this many terms: far more than float rounds to.
constexpr double kBound = 4.0 * kWidth * kWidth * 0x1p-24;

struct RandomBasis {
  std::vector<float> forward = RandomValues(kWidth * kWidth, 1);
  std::vector<float> back = RandomValues(kWidth * kWidth, 2);
  std::vector<float> mean = RandomValues(kWidth, 3);
  [[nodiscard]] BasisView view(bool with_mean) const {
    return {ConstMatrixF(forward.data(), kWidth, kWidth), ConstMatrixF(back.data(), kWidth, kWidth),
            with_mean ? mean.data() : nullptr};
  }
};

// y = (x - mean) forward[:, :r] and x^ = mean + y back[:, :r]^T by loops in double.
TEST(Basis, MatchesLoops) {
  const RandomBasis basis;
  const std::vector<float> x = RandomValues(kTokens * kWidth, 4);
  for (const bool with_mean : {false, true}) {
    for (const int64_t width : {int64_t{0}, int64_t{1}, int64_t{4}, kWidth}) {
      std::vector<float> y(static_cast<size_t>(kTokens * width));
      std::vector<float> restored(x.size());
      std::vector<float> at_once(x.size());
      const BasisView view = basis.view(with_mean);
      const ConstMatrixF rows(x.data(), kTokens, kWidth);
      const MatrixF coordinates(y.data(), kTokens, width);
      ToCoordinates(rows, view, coordinates);
      FromCoordinates(coordinates, view, MatrixF(restored.data(), kTokens, kWidth));
      ApproximateRows(rows, view, width, MatrixF(at_once.data(), kTokens, kWidth));
      EXPECT_EQ(restored, at_once);
      for (int64_t t = 0; t < kTokens; ++t) {
        std::vector<double> expected(kWidth);
        std::vector<double> sizes(kWidth, 1.0);
        for (int64_t d = 0; d < kWidth; ++d) expected[d] = with_mean ? basis.mean[d] : 0.0;
        for (int64_t r = 0; r < width; ++r) {
          double coordinate = 0.0;
          double size = 0.0;
          for (int64_t d = 0; d < kWidth; ++d) {
            const double mean = with_mean ? basis.mean[d] : 0.0;
            const double term = (rows(t, d) - mean) * basis.forward[d * kWidth + r];
            coordinate += term;
            size += std::abs(term) + std::abs(mean * basis.forward[d * kWidth + r]);
          }
          ASSERT_NEAR(coordinates(t, r), coordinate, kBound * size);
          for (int64_t d = 0; d < kWidth; ++d) {
            expected[d] += coordinate * basis.back[d * kWidth + r];
            sizes[d] += size * std::abs(basis.back[d * kWidth + r]);
          }
        }
        for (int64_t d = 0; d < kWidth; ++d) {
          ASSERT_NEAR(restored[t * kWidth + d], expected[d], kBound * sizes[d]);
        }
      }
    }
  }
}

TEST(Basis, KeepsAPrefixOfTheCoordinates) {
  // forward = diag(2, 4, 8) and its inverse, about a mean: exact, then with columns missing.
  const std::vector<float> forward = {2, 0, 0, 0, 4, 0, 0, 0, 8};
  const std::vector<float> back = {0.5F, 0, 0, 0, 0.25F, 0, 0, 0, 0.125F};
  const std::vector<float> mean = {1, 1, 1};
  const BasisView basis = {ConstMatrixF(forward.data(), 3, 3), ConstMatrixF(back.data(), 3, 3),
                           mean.data()};
  const std::vector<float> x = {3, 5, 7, -1, 0, 2};
  std::vector<float> y(6);
  const ConstMatrixF rows(x.data(), 2, 3);
  ApproximateRows(rows, basis, 3, MatrixF(y.data(), 2, 3));
  EXPECT_EQ(y, x);
  ApproximateRows(rows, basis, 2, MatrixF(y.data(), 2, 3));
  EXPECT_EQ(y, (std::vector<float>{3, 5, 1, -1, 0, 1}));
  ApproximateRows(rows, basis, 0, MatrixF(y.data(), 2, 3));
  EXPECT_EQ(y, (std::vector<float>{1, 1, 1, 1, 1, 1}));
}

TEST(Basis, RefusesWhatDoesNotFit) {
  const RandomBasis basis;
  const std::vector<float> x(kTokens * kWidth);
  std::vector<float> y(kTokens * (kWidth + 1));
  const ConstMatrixF rows(x.data(), kTokens, kWidth);
  EXPECT_KVC_ERROR(
      ApproximateRows(rows, basis.view(true), kWidth + 1, MatrixF(y.data(), kTokens, kWidth)),
      kBadShape, "a width of 0 to 6, got 7");
  EXPECT_KVC_ERROR(ToCoordinates(rows, basis.view(true), MatrixF(y.data(), kTokens, kWidth + 1)),
                   kBadShape, "at least 7 columns");
  EXPECT_KVC_ERROR(FromCoordinates(ConstMatrixF(x.data(), kTokens - 1, kWidth), basis.view(true),
                                   MatrixF(y.data(), kTokens, kWidth)),
                   kBadShape, "as many rows");
}

}  // namespace
}  // namespace kvc::linalg
