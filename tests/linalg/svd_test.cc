#include "linalg/svd.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "tests/linalg/random_matrix.h"
#include "tests/support/expect_error.h"

namespace kvc::linalg {
namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

double Norm(const Matrix& a) {
  double sum = 0.0;
  for (const double value : a.data) sum += value * value;
  return std::sqrt(sum);
}

Matrix Difference(Matrix a, const Matrix& b) {
  for (size_t i = 0; i < a.data.size(); ++i) a.data[i] -= b.data[i];
  return a;
}

// u diag(s) vt of the first `rank` triplets, by loops.
Matrix Product(const SvdResult& svd, int64_t rank) {
  Matrix result(svd.u.rows, svd.vt.cols);
  for (int64_t r = 0; r < result.rows; ++r) {
    for (int64_t c = 0; c < result.cols; ++c) {
      for (int64_t i = 0; i < rank; ++i) {
        result(r, c) += svd.u(r, i) * svd.s[i] * svd.vt(i, c);
      }
    }
  }
  return result;
}

// Skips where the backend needs a device and there is none.
class SvdTest : public ::testing::TestWithParam<SvdBackend> {
 protected:
  void SetUp() override {
    try {
      svd_ = Svd::Create(GetParam());
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::kDevice) << error.what();
      GTEST_SKIP() << error.what();
    }
  }

  std::unique_ptr<Svd> svd_;
};

// Checks what defines a decomposition, whatever the signs and the order of equal values.
void CheckInvariants(const Svd& svd, const Matrix& a) {
  const SvdResult result = svd.Decompose(a.view());
  const auto k = static_cast<int64_t>(result.s.size());
  ASSERT_EQ(k, std::min(a.rows, a.cols));
  const double bound = 50.0 * kEpsilon * static_cast<double>(std::max(a.rows, a.cols));
  EXPECT_LE(Norm(Difference(Product(result, k), a)), bound * Norm(a));
  const Matrix u_gram = Multiply(Transpose(result.u.view()).view(), result.u.view());
  const Matrix v_gram = MultiplyTransposed(result.vt.view(), result.vt.view());
  EXPECT_LE(Norm(Difference(u_gram, Identity(k))), bound * static_cast<double>(k));
  EXPECT_LE(Norm(Difference(v_gram, Identity(k))), bound * static_cast<double>(k));
  double tail = 0.0;  // Eckart-Young: the best rank-r error is the rest of the spectrum
  for (int64_t i = k; i-- > 0;) {
    EXPECT_GE(result.s[i], 0.0);
    if (i + 1 < k) {
      EXPECT_GE(result.s[i], result.s[i + 1]);
    }
    tail += result.s[i] * result.s[i];
    EXPECT_NEAR(Norm(Difference(Product(result, i), a)), std::sqrt(tail), bound * Norm(a) + 1e-300);
  }
}

TEST_P(SvdTest, InvariantsOverShapesAndScales) {
  CheckInvariants(*svd_, RandomMatrix(9, 4, 1));
  CheckInvariants(*svd_, RandomMatrix(4, 9, 2));
  CheckInvariants(*svd_, RandomMatrix(7, 7, 3));
  CheckInvariants(*svd_, RandomMatrix(1, 5, 4));
  CheckInvariants(*svd_, RandomMatrix(5, 1, 5));
  CheckInvariants(*svd_, RandomMatrix(6, 5, 6, 1e120));
  CheckInvariants(*svd_, RandomMatrix(6, 5, 7, 1e-120));
  CheckInvariants(*svd_, Matrix(3, 4));  // zero
  CheckInvariants(*svd_, Identity(5));   // repeated values
  CheckInvariants(*svd_, MultiplyTransposed(RandomMatrix(8, 2, 8).view(),
                                            RandomMatrix(6, 2, 9).view()));  // rank 2
}

TEST_P(SvdTest, EigenvectorsOfASymmetricMatrix) {
  const Matrix root = RandomMatrix(12, 8, 10);
  const Matrix a = MultiplyTransposed(root.view(), root.view());  // [12, 12], rank 8
  const EigenResult eigen = svd_->DecomposeSymmetric(a.view());
  Matrix scaled = eigen.vectors;
  for (int64_t r = 0; r < 12; ++r) {
    for (int64_t c = 0; c < 12; ++c) scaled(r, c) *= eigen.values[c];
  }
  const Matrix again = MultiplyTransposed(scaled.view(), eigen.vectors.view());
  EXPECT_LE(Norm(Difference(again, a)), 200.0 * kEpsilon * Norm(a));
  for (size_t i = 1; i < eigen.values.size(); ++i) {
    EXPECT_GE(eigen.values[i - 1], eigen.values[i]);
  }
  for (size_t i = 8; i < 12; ++i) EXPECT_NEAR(eigen.values[i], 0.0, 1e-12 * Norm(a));
}

TEST_P(SvdTest, BackendsAgreeOnSignsToo) {
  const Matrix a = RandomMatrix(10, 6, 11);
  const SvdResult one = svd_->Decompose(a.view());
  const SvdResult other = Svd::Create(SvdBackend::kEigen)->Decompose(a.view());
  EXPECT_LE(Norm(Difference(one.u, other.u)), 1e-12);
  EXPECT_LE(Norm(Difference(one.vt, other.vt)), 1e-12);
}

TEST_P(SvdTest, RefusesWhatIsNoMatrix) {
  Matrix a = RandomMatrix(3, 3, 12);
  a(1, 2) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_KVC_ERROR((void)svd_->Decompose(a.view()), kNumeric, "at (1, 2)");
  EXPECT_KVC_ERROR((void)svd_->DecomposeSymmetric(a.view()), kNumeric, "at (1, 2)");
  EXPECT_KVC_ERROR((void)svd_->Decompose(Matrix(0, 3).view()), kBadShape, "[0, 3]");
  EXPECT_KVC_ERROR((void)svd_->DecomposeSymmetric(Matrix(2, 3).view()), kBadShape,
                   "expected a square matrix");
}

// A block a of floats, and its Gram matrix a a^T in double by loops. Rows lie cols + gap apart.
struct Block {
  std::vector<float> values;  // [rows, stride]
  Matrix gram;
  int64_t rows, cols, stride;
  Block(int64_t r, int64_t c, uint64_t seed, int64_t gap = 0)
      : gram(r, r), rows(r), cols(c), stride(c + gap) {
    const Matrix a = RandomMatrix(r, stride, seed);
    values.assign(a.data.begin(), a.data.end());
    for (int64_t i = 0; i < r; ++i) {
      for (int64_t j = 0; j < r; ++j) {
        for (int64_t k = 0; k < c; ++k) {
          gram(i, j) += static_cast<double>(values[i * stride + k]) * values[j * stride + k];
        }
      }
    }
  }
  [[nodiscard]] ConstMatrixF view() const { return {values.data(), rows, cols, stride}; }
};

// The rounding error of a sum of n products, relative to its size: LAPACK's vectors of a Gram
// matrix are float, those of the other backends double.
double VectorAccuracy(SvdBackend backend, int64_t n) {
  return static_cast<double>(n) * (backend == SvdBackend::kLapack ? 0x1p-23 : 8.0 * kEpsilon);
}

// The vectors are finite, in order and orthonormal, and make the Gram matrix with their values.
void CheckEigen(const GramResult& result, double accuracy) {
  const auto& [gram, eigen] = result;
  EXPECT_TRUE(std::is_sorted(eigen.values.rbegin(), eigen.values.rend()));
  const Matrix rows = Transpose(eigen.vectors.view());
  const Matrix products = MultiplyTransposed(rows.view(), rows.view());
  EXPECT_LE(Norm(Difference(products, Identity(gram.rows))), 4.0 * accuracy);
  Matrix scaled = eigen.vectors;
  for (int64_t r = 0; r < scaled.rows; ++r) {
    for (int64_t c = 0; c < scaled.cols; ++c) scaled(r, c) *= eigen.values[c];
  }
  const Matrix again = MultiplyTransposed(scaled.view(), eigen.vectors.view());
  EXPECT_LE(Norm(Difference(again, gram)), 4.0 * accuracy * Norm(gram));
}

TEST_P(SvdTest, GramsOfManyBlocks) {
  // Several slices, exactly one slice, one that ends inside a cache line and a tile of rows,
  // several blocks of one shape with gaps between their rows, one row, one number.
  const std::vector<Block> blocks = {{7, 1300, 21},    {12, 512, 22},    {33, 1041, 25},
                                     {5, 512, 26, 88}, {5, 512, 27, 88}, {5, 512, 28, 88},
                                     {1, 40, 23},      {1, 1, 24}};
  std::vector<ConstMatrixF> views;
  for (const Block& block : blocks) views.push_back(block.view());
  const auto results = svd_->DecomposeGrams(views);
  ASSERT_EQ(results.size(), blocks.size());
  for (size_t i = 0; i < blocks.size(); ++i) {
    // Sums of at most 512 products in float: each rounds to half a unit of 2^-23 of the sum of
    // sizes, which for n products of a row with itself is the trace's share.
    const double bound = 512.0 * 0x1p-24 * Norm(blocks[i].gram);
    EXPECT_LE(Norm(Difference(results[i].gram, blocks[i].gram)), bound) << i;
    EXPECT_EQ(results[i].gram.data, Transpose(results[i].gram.view()).data) << i;
    const double accuracy = VectorAccuracy(GetParam(), blocks[i].rows);
    CheckEigen(results[i], accuracy);
    // A vector turns by the error over the gap to the next value; its Rayleigh quotient is off by
    // the square of that. Signs too.
    const SvdResult svd = svd_->Decompose(results[i].gram.view());
    double gap = svd.s[0];
    for (size_t k = 1; k < svd.s.size(); ++k) gap = std::min(gap, svd.s[k - 1] - svd.s[k]);
    const EigenResult& eigen = results[i].eigen;
    const double turned = 4.0 * accuracy * svd.s[0] / gap;
    EXPECT_LE(Norm(Difference(svd.u, eigen.vectors)), turned) << i;
    for (size_t k = 0; k < svd.s.size(); ++k) {
      EXPECT_NEAR(eigen.values[k], svd.s[k], (turned * accuracy + 100 * kEpsilon) * svd.s[0]) << k;
    }
  }
  EXPECT_TRUE(svd_->DecomposeGrams({}).empty());
}

TEST_P(SvdTest, GramsOfBlocksWithoutGaps) {
  std::vector<std::vector<float>> blocks(5, std::vector<float>(6 * 48));  // the first: zero
  Rng rng(40);
  for (int64_t c = 0; c < 48; ++c) {
    const auto value = static_cast<float>(rng.NextNormal());
    for (int64_t r = 0; r < 6; ++r) {
      blocks[1][r * 48 + c] = c == r ? 3.0F : 0.0F;                          // equal values
      blocks[2][r * 48 + c] = value * static_cast<float>(r);                 // rank 1
      blocks[3][r * 48 + c] = static_cast<float>(1e-12 * rng.NextNormal());  // small
      blocks[4][r * 48 + c] = static_cast<float>(1e17 * rng.NextNormal());   // large
    }
  }
  std::vector<ConstMatrixF> views;
  for (const auto& block : blocks) views.emplace_back(block.data(), 6, 48);
  const auto results = svd_->DecomposeGrams(views);
  for (const GramResult& result : results) CheckEigen(result, VectorAccuracy(GetParam(), 6));
  for (const double value : results[0].eigen.values) EXPECT_EQ(value, 0.0);
  for (const double value : results[1].eigen.values) EXPECT_NEAR(value, 9.0, 1e-11);
}

// A head's shape and spectrum (condition 180) against the SVD in double: what svd.h states.
TEST(Svd, GramsOfAHeadAgainstItsSvd) {
  constexpr int64_t kWidth = 128;
  constexpr int64_t kKept = 32;
  const Matrix mix =
      Svd::Create(SvdBackend::kLapack)->Decompose(RandomMatrix(kWidth, kWidth, 50).view()).u;
  Matrix head = RandomMatrix(kWidth, 1024, 51);
  for (int64_t r = 0; r < kWidth; ++r) {
    for (int64_t c = 0; c < head.cols; ++c) head(r, c) *= std::pow(0.96, r);
  }
  head = Multiply(mix.view(), head.view());
  const std::vector<float> block(head.data.begin(), head.data.end());
  head.data.assign(block.begin(), block.end());
  const auto svd = Svd::Create(SvdBackend::kLapack);
  const SvdResult exact = svd->Decompose(head.view());
  const std::vector<ConstMatrixF> views = {ConstMatrixF(block.data(), kWidth, head.cols)};
  const EigenResult eigen = svd->DecomposeGrams(views)[0].eigen;
  for (int64_t i = 0; i < kWidth; ++i) {
    const double bound = 1e-6 * exact.s[0] * exact.s[0] / (2.0 * exact.s[i]);
    EXPECT_NEAR(std::sqrt(eigen.values[i]), exact.s[i], i < kKept ? 1e-6 * exact.s[i] : bound) << i;
  }
  // What the kept directions have outside the exact ones; gap of the values: s_31^2 - s_32^2.
  const Matrix outside =
      Multiply(Transpose(exact.u.view().ColRange(kKept, kWidth - kKept)).view(),  // [96, 128]
               eigen.vectors.view().ColRange(0, kKept));
  const double gap = std::pow(exact.s[kKept - 1], 2) - std::pow(exact.s[kKept], 2);
  EXPECT_LE(Norm(outside), 1e-6 * exact.s[0] * exact.s[0] / gap);
}

TEST_P(SvdTest, GramsDoNotDependOnThreadsAndRefuseNaN) {
  std::vector<Block> blocks;
  for (uint64_t seed = 30; seed < 37; ++seed) blocks.emplace_back(5, 700, seed);
  std::vector<ConstMatrixF> views;
  for (const Block& block : blocks) views.push_back(block.view());
  const auto one = svd_->DecomposeGrams(views);
  const auto many = Svd::Create(GetParam(), 3)->DecomposeGrams(views);
  for (size_t i = 0; i < views.size(); ++i) {
    EXPECT_EQ(one[i].gram.data, many[i].gram.data);
    EXPECT_EQ(one[i].eigen.vectors.data, many[i].eigen.vectors.data);
  }
  blocks[4].values[11] = std::numeric_limits<float>::infinity();
  EXPECT_KVC_ERROR((void)svd_->DecomposeGrams(views), kNumeric, "got inf at (0, 11)");
  blocks[4].values[11] = 1e20F;  // finite, its square is not
  EXPECT_KVC_ERROR((void)svd_->DecomposeGrams(views), kNumeric, "in row 0");
  const std::vector<ConstMatrixF> empty = {ConstMatrixF(nullptr, 0, 3)};
  EXPECT_KVC_ERROR((void)svd_->DecomposeGrams(empty), kBadShape, "[0, 3]");
}

INSTANTIATE_TEST_SUITE_P(
    Backends,
    SvdTest,
    ::testing::Values(SvdBackend::kEigen, SvdBackend::kLapack, SvdBackend::kCuSolver),
    [](const auto& backend) {
      // Tests that need a device have Cuda in their names.
      return backend.param == SvdBackend::kCuSolver ? "Cuda" : SvdBackendName(backend.param);
    });

TEST(Svd, CuSolverIsThereOrRefusedByName) {
  try {
    EXPECT_EQ(Svd::Create(SvdBackend::kCuSolver)->backend(), SvdBackend::kCuSolver);
  } catch (const Error& error) {  // no CUDA in this build, or no device in this machine
    EXPECT_EQ(error.kind(), ErrorKind::kDevice);
    EXPECT_NE(std::string(error.what()).find("--device cpu"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace kvc::linalg
