#include "linalg/principal_axes.h"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "linalg/svd.h"
#include "tests/linalg/random_matrix.h"
#include "tests/support/expect_error.h"

namespace kvc::linalg {
namespace {

constexpr int64_t kSize = 12;
// Eigenvalues 4^0, 4^-1, ...: neighbours lie 3/4 of the larger one apart.
constexpr double kRatio = 0.25;

// V diag(kRatio^i) V^T for a random orthogonal V, and V.
struct Symmetric {
  Matrix vectors;             // [n, n], columns
  std::vector<float> values;  // [n, n]
};

Symmetric MakeSymmetric(uint64_t seed) {
  const Matrix random = RandomMatrix(kSize, kSize, seed);
  Symmetric result;
  result.vectors = Svd::Create(SvdBackend::kEigen)->Decompose(random.view()).u;
  for (int64_t r = 0; r < kSize; ++r) {
    for (int64_t c = 0; c < kSize; ++c) {
      double sum = 0.0;
      for (int64_t i = 0; i < kSize; ++i) {
        sum += result.vectors(r, i) * std::pow(kRatio, i) * result.vectors(c, i);
      }
      result.values.push_back(static_cast<float>(sum));
    }
  }
  return result;
}

// A vector turns by at most the error of the matrix over the gap to the next eigenvalue.
TEST(PrincipalAxes, AreTheLeadingEigenvectors) {
  for (const int64_t count : {0, 1, 4, 7}) {
    Symmetric symmetric = MakeSymmetric(21);
    std::vector<float> axes(static_cast<size_t>(count * kSize));
    PrincipalAxes({symmetric.values.data(), kSize, kSize}, {axes.data(), count, kSize});
    for (int64_t i = 0; i < count; ++i) {
      double dot = 0.0;
      double square = 0.0;
      for (int64_t d = 0; d < kSize; ++d) {
        dot += axes[i * kSize + d] * symmetric.vectors(d, i);
        square += static_cast<double>(axes[i * kSize + d]) * axes[i * kSize + d];
      }
      const double turned = 8.0 * kSize * 0x1p-24 / (0.75 * std::pow(kRatio, i));
      EXPECT_NEAR(square, 1.0, 8.0 * kSize * 0x1p-24);
      EXPECT_LE(1.0 - std::abs(dot), turned * turned + 8.0 * kSize * 0x1p-24) << i;
    }
  }
}

TEST(PrincipalAxes, RefusesWhatIsNoSymmetricMatrix) {
  std::vector<float> values(9, 1.0F);
  std::vector<float> axes(12);
  EXPECT_KVC_ERROR(PrincipalAxes({values.data(), 3, 3}, {axes.data(), 4, 3}), kBadShape,
                   "at most 3 dense axes of width 3, got [4, 3]");
  EXPECT_KVC_ERROR(PrincipalAxes({values.data(), 2, 3}, {axes.data(), 1, 3}), kBadShape, "[2, 3]");
  values[4] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_KVC_ERROR(PrincipalAxes({values.data(), 3, 3}, {axes.data(), 1, 3}), kNumeric, "got nan");
}

}  // namespace
}  // namespace kvc::linalg
