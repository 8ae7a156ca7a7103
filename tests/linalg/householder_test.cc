#include "linalg/householder.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::linalg {
namespace {

// A float matrix that owns its numbers.
struct Floats {
  Floats(int64_t r, int64_t c) : rows(r), cols(c), data(static_cast<size_t>(r * c)) {}
  float& operator()(int64_t r, int64_t c) { return data[static_cast<size_t>(r * cols + c)]; }
  float operator()(int64_t r, int64_t c) const { return data[static_cast<size_t>(r * cols + c)]; }
  [[nodiscard]] MatrixF view() { return {data.data(), rows, cols}; }
  [[nodiscard]] ConstMatrixF view() const { return {data.data(), rows, cols}; }
  int64_t rows, cols;
  std::vector<float> data;
};

Floats Random(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  Floats matrix(rows, cols);
  for (float& value : matrix.data) value = static_cast<float>(rng.NextNormal());
  return matrix;
}

// Row t of x H_1 .. H_n, in double precision.
std::vector<double> SlowReflected(ConstMatrixF x, int64_t t, ConstMatrixF reflectors) {
  std::vector<double> row(x.row(t), x.row(t) + x.cols);
  for (int64_t i = 0; i < reflectors.rows; ++i) {
    double dot = 0.0;
    for (int64_t d = 0; d < x.cols; ++d) dot += row[d] * double{reflectors(i, d)};
    for (int64_t d = 0; d < x.cols; ++d) row[d] -= dot * double{reflectors(i, d)};
  }
  return row;
}

TEST(Householder, AnyNumberOfReflectorsIsOrthogonal) {
  constexpr int64_t kWidth = 12;
  const Floats x = Random(5, kWidth, 3);
  for (const int64_t rows : {0, 1, 3, 40}) {
    for (const int64_t count : {0, 1, 4, 12}) {
      SCOPED_TRACE(::testing::Message() << rows << " rows, " << count << " reflectors");
      const Floats found_in = Random(rows, kWidth, 7);
      std::vector<float> storage(static_cast<size_t>(count * kWidth));
      const MatrixF reflectors(storage.data(), count, kWidth);
      FindReflectors(found_in.view(), reflectors);
      for (int64_t i = 0; i < count; ++i) {
        double square = 0.0;
        for (int64_t d = 0; d < kWidth; ++d) square += std::pow(double{reflectors(i, d)}, 2);
        EXPECT_NEAR(square, 2.0, 1e-5);
      }
      Floats y(5, kWidth);
      Floats back(5, kWidth);
      ToReflected(x.view(), reflectors, y.view());
      FromReflected(y.view(), reflectors, back.view());
      for (int64_t t = 0; t < x.rows; ++t) {
        const std::vector<double> expected = SlowReflected(x.view(), t, reflectors);
        for (int64_t d = 0; d < kWidth; ++d) {
          EXPECT_NEAR(y(t, d), expected[d], 1e-5);
          EXPECT_NEAR(back(t, d), x(t, d), 1e-5);
        }
      }
    }
  }
}

TEST(Householder, AFewCoordinatesAreTheFirstOfAll) {
  const Floats x = Random(3, 8, 5);
  std::vector<float> storage(2 * 8);
  const MatrixF reflectors(storage.data(), 2, 8);
  FindReflectors(x.view(), reflectors);
  Floats all(3, 8);
  Floats few(3, 2);
  ToReflected(x.view(), reflectors, all.view());
  ToReflected(x.view(), reflectors, few.view());
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t d = 0; d < 2; ++d) EXPECT_EQ(few(t, d), all(t, d));
    for (int64_t d = 2; d < 8; ++d) all(t, d) = 0.0F;
  }
  // What is missing counts as zero.
  Floats from_few(3, 8);
  Floats from_all(3, 8);
  FromReflected(few.view(), reflectors, from_few.view());
  FromReflected(all.view(), reflectors, from_all.view());
  EXPECT_EQ(from_few.data, from_all.data);
}

// Rows spread along three directions, less along each: the first coordinates hold them.
TEST(Householder, TheFirstCoordinatesAreThePrincipalAxes) {
  constexpr int64_t kRows = 200;
  constexpr int64_t kWidth = 16;
  const Floats directions = Random(3, kWidth, 9);
  const Floats amounts = Random(kRows, 3, 10);
  Floats x(kRows, kWidth);
  for (int64_t t = 0; t < kRows; ++t) {
    for (int64_t i = 0; i < 3; ++i) {
      for (int64_t d = 0; d < kWidth; ++d) {
        x(t, d) += amounts(t, i) * static_cast<float>(std::pow(0.2, i)) * directions(i, d);
      }
    }
  }
  std::vector<float> storage(3 * kWidth);
  const MatrixF reflectors(storage.data(), 3, kWidth);
  FindReflectors(x.view(), reflectors);
  double last = 1e300;
  for (int64_t kept = 0; kept <= 3; ++kept) {
    Floats coordinates(kRows, kept);
    Floats near(kRows, kWidth);
    ToReflected(x.view(), reflectors, coordinates.view());
    FromReflected(coordinates.view(), reflectors, near.view());
    double error = 0.0;
    for (size_t i = 0; i < x.data.size(); ++i)
      error += std::pow(double{x.data[i]} - near.data[i], 2);
    EXPECT_LT(error, 0.2 * last) << kept << " coordinates";
    last = error;
  }
  EXPECT_LE(last, 1e-8 * kRows * kWidth);
}

TEST(Householder, RefusesSizesThatDisagree) {
  const Floats x = Random(3, 8, 5);
  Floats y(3, 8);
  Floats wide(3, 9);
  Floats fewer(2, 8);
  const Floats reflectors = Random(2, 7, 6);
  EXPECT_KVC_ERROR(ToReflected(x.view(), reflectors.view(), y.view()), kBadShape, "reflectors");
  const Floats fitting = Random(2, 8, 6);
  EXPECT_KVC_ERROR(ToReflected(x.view(), fitting.view(), wide.view()), kBadShape, "reflectors");
  EXPECT_KVC_ERROR(ToReflected(x.view(), fitting.view(), fewer.view()), kBadShape, "reflectors");
}

}  // namespace
}  // namespace kvc::linalg
