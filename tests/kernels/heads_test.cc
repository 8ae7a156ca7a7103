#include "kernels/heads.h"

#include <limits>

#include <gtest/gtest.h>

#include "tests/kernels/simd_target_test.h"
#include "tests/kernels/test_arrays.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

class HeadsTest : public SimdTargetTest {
 protected:
  ThreadPool pool_{2};
  Rng rng_{5};
};

// D products and sums in float, each rounded once at most: |error| <= (D + 1) u sum |terms|.
TEST_P(HeadsTest, ProjectHeads) {
  struct Shape {
    int64_t heads, groups, depth, width;
  };
  for (const auto& [heads, groups, depth, width] :
       {Shape{1, 1, 1, 1}, Shape{4, 2, 6, 3}, Shape{6, 2, 64, 16}, Shape{3, 3, 7, 33},
        Shape{4, 1, 128, 48}, Shape{2, 2, 5, 100}}) {
    for (const int64_t rows : {0, 1, 3, 65}) {
      const TestArray x = RandomArray(rng_, rows, heads * depth, DType::kF32, 3);
      const TestArray columns = RandomArray(rng_, groups * depth, width);
      const TestArray bias = RandomArray(rng_, 1, groups * width);
      TestArray y = RandomArray(rng_, rows, heads * width, DType::kF32, 1);
      TestArray plain = y;
      ProjectHeads(x.view(), heads, columns.view(), groups, bias.view().data, y.view(), pool_);
      ProjectHeads(x.view(), heads, columns.view(), groups, nullptr, plain.view(), pool_);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t c = 0; c < heads * width; ++c) {
          const int64_t h = c / width;
          const int64_t g = h / (heads / groups);
          double sum = 0.0;
          double size = 0.0;
          for (int64_t d = 0; d < depth; ++d) {
            const double term = x(t, h * depth + d) * columns(g * depth + d, c % width);
            sum += term;
            size += std::abs(term);
          }
          const double offset = bias(0, g * width + c % width);
          const double unit = static_cast<double>(depth + 1) * kUnit;
          ASSERT_LE(std::abs(plain(t, c) - sum), unit * size) << heads << " heads, column " << c;
          ASSERT_LE(std::abs(y(t, c) - sum - offset), unit * (size + std::abs(offset)));
        }
      }
    }
  }
}

TEST_P(HeadsTest, ProjectHeadsKeepsNaNInItsHead) {
  TestArray x = RandomArray(rng_, 1, 12);
  x.Set(0, 4, std::numeric_limits<float>::quiet_NaN());  // head 1 of 3
  const TestArray columns = RandomArray(rng_, 12, 5);
  TestArray y = RandomArray(rng_, 1, 15);
  ProjectHeads(x.view(), 3, columns.view(), 3, nullptr, y.view(), pool_);
  for (int64_t c = 0; c < 15; ++c) EXPECT_EQ(std::isnan(y(0, c)), c / 5 == 1) << c;
}

// Two products and one sum.
TEST_P(HeadsTest, RopePairs) {
  const TestArray cos = RandomArray(rng_, 40, 6);
  const TestArray sin = RandomArray(rng_, 40, 6);
  const std::vector<int64_t> pairs = {5, 0, 0, 3};
  for (const int64_t rows : {0, 1, 37}) {
    const TestArray x = RandomArray(rng_, rows, 8, DType::kF32, 2);
    std::vector<int32_t> positions;
    for (int64_t t = 0; t < rows; ++t) positions.push_back(static_cast<int32_t>((7 * t + 2) % 40));
    TestArray y = x;
    RopePairs(y.view(), pairs, positions, cos.view(), sin.view(), pool_);
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t i = 0; i < 4; ++i) {
        const double c = cos(positions[t], pairs[i]);
        const double s = sin(positions[t], pairs[i]);
        const double a = x(t, 2 * i);
        const double b = x(t, 2 * i + 1);
        const double size =
            std::abs(a) * (std::abs(c) + std::abs(s)) + std::abs(b) * (std::abs(c) + std::abs(s));
        ASSERT_LE(std::abs(y(t, 2 * i) - (a * c - b * s)), 2 * kUnit * size);
        ASSERT_LE(std::abs(y(t, 2 * i + 1) - (b * c + a * s)), 2 * kUnit * size);
      }
    }
  }
}

TEST_P(HeadsTest, Refusals) {
  TestArray x = RandomArray(rng_, 2, 8);
  const TestArray columns = RandomArray(rng_, 8, 3);
  TestArray y = RandomArray(rng_, 2, 6);
  EXPECT_KVC_ERROR(ProjectHeads(x.view(), 3, columns.view(), 2, nullptr, y.view(), pool_),
                   kBadShape, "3 heads in 2 groups");
  EXPECT_KVC_ERROR(ProjectHeads(x.view(), 4, columns.view(), 2, nullptr, y.view(), pool_),
                   kBadShape, "ProjectHeads");
  const std::vector<int64_t> pairs = {0, 1, 2, 0};
  const std::vector<int32_t> positions = {0, 3};
  const TestArray table = RandomArray(rng_, 3, 3);
  EXPECT_KVC_ERROR(RopePairs(x.view(), pairs, positions, table.view(), table.view(), pool_),
                   kBadShape, "position below 3");
  EXPECT_KVC_ERROR(RopePairs(y.view(), pairs, positions, table.view(), table.view(), pool_),
                   kBadShape, "expected x [2, 2 * 4]");
}

KVC_FOR_EVERY_SIMD_TARGET(HeadsTest);

}  // namespace
}  // namespace kvc::kernels
