#include <cmath>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "linalg/svd.h"

namespace kvc::linalg {
namespace {

// cuSOLVER against LAPACK: the sides share no code but the interface.
class CuSolverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    try {
      device_ = Svd::Create(SvdBackend::kCuSolver);
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::kDevice) << error.what();
      GTEST_SKIP() << error.what();
    }
  }

  std::unique_ptr<Svd> device_;
  std::unique_ptr<Svd> lapack_ = Svd::Create(SvdBackend::kLapack);
};

Matrix RandomMatrix(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  Matrix a(rows, cols);
  for (double& value : a.data) value = rng.NextNormal();
  return a;
}

double LargestDifference(const std::vector<double>& a, const std::vector<double>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0.0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    if (!(difference <= largest)) largest = difference;  // a NaN stays
  }
  return largest;
}

// Random matrices of these sizes have values that lie apart by 1e-4 of the largest at least, so
// vectors agree to 1e4 units of the last place, times their number.
constexpr double kVectorBound = 1e-10;

TEST_F(CuSolverTest, DecomposesWideTallAndSingle) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{9, 4}, {4, 9}, {7, 7}, {1, 5}, {5, 1}};
  for (const auto& [rows, cols] : shapes) {
    const Matrix a = RandomMatrix(rows, cols, 100 + rows * 10 + cols);
    const SvdResult device = device_->Decompose(a.view());
    const SvdResult host = lapack_->Decompose(a.view());
    EXPECT_LE(LargestDifference(device.s, host.s), 1e-13 * host.s[0]) << rows << " x " << cols;
    EXPECT_LE(LargestDifference(device.u.data, host.u.data), kVectorBound) << rows << " x " << cols;
    EXPECT_LE(LargestDifference(device.vt.data, host.vt.data), kVectorBound)
        << rows << " x " << cols;
  }
}

TEST_F(CuSolverTest, EigenvectorsOfASymmetricMatrix) {
  for (const int64_t n : {1, 2, 31, 128}) {
    const Matrix root = RandomMatrix(n, n + 3, 7 + n);
    const Matrix a = MultiplyTransposed(root.view(), root.view());
    const EigenResult device = device_->DecomposeSymmetric(a.view());
    const EigenResult host = lapack_->DecomposeSymmetric(a.view());
    EXPECT_LE(LargestDifference(device.values, host.values), 1e-13 * n * host.values[0]) << n;
    EXPECT_LE(LargestDifference(device.vectors.data, host.vectors.data), kVectorBound) << n;
  }
}

TEST_F(CuSolverTest, GramsOfBlocksOfSeveralShapes) {
  // Two runs of equal shapes, the second with rows further apart than they are long.
  std::vector<std::vector<float>> values;
  std::vector<ConstMatrixF> blocks;
  Rng rng(5);
  const auto add = [&](int64_t rows, int64_t cols, int64_t stride) {
    std::vector<float>& block = values.emplace_back(rows * stride);
    for (float& value : block) value = static_cast<float>(rng.NextNormal());
    blocks.emplace_back(block.data(), rows, cols, stride);
  };
  values.reserve(6);
  for (int i = 0; i < 3; ++i) add(16, 1300, 1300);
  for (int i = 0; i < 2; ++i) add(5, 512, 600);
  add(1, 1, 1);
  const auto device = device_->DecomposeGrams(blocks);
  const auto host = lapack_->DecomposeGrams(blocks);
  for (size_t i = 0; i < blocks.size(); ++i) {
    const double size = host[i].eigen.values[0];
    // Both sum at most 512 products in float.
    const double bound = 2 * 512 * 0x1p-24 * size;
    EXPECT_LE(LargestDifference(device[i].gram.data, host[i].gram.data), bound) << i;
    EXPECT_LE(LargestDifference(device[i].eigen.values, host[i].eigen.values), bound) << i;
    for (int64_t r = 0; r < blocks[i].rows; ++r) {
      for (int64_t c = 0; c < r; ++c) EXPECT_EQ(device[i].gram(r, c), device[i].gram(c, r));
    }
  }
}

TEST_F(CuSolverTest, RefusesNaN) {
  std::vector<float> values(12, 1.0F);
  values[7] = NAN;
  const std::vector<ConstMatrixF> blocks = {{values.data(), 3, 4}};
  EXPECT_THROW((void)device_->DecomposeGrams(blocks), Error);
}

}  // namespace
}  // namespace kvc::linalg
