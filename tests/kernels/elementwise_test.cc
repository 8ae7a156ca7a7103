#include "kernels/elementwise.h"

#include <gtest/gtest.h>

#include "tests/kernels/simd_target_test.h"
#include "tests/kernels/test_arrays.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

const std::vector<int64_t> kWidths = {1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 199, 576};

std::span<const float> SpanOf(const TestArray& array) {
  return {array.view().data, static_cast<size_t>(array.cols)};
}

double SumOf(const TestArray& x, int64_t t, double shift, int power) {
  double sum = 0.0;
  for (int64_t c = 0; c < x.cols; ++c) {
    sum += std::pow(x(t, c) - shift, power);
  }
  return sum;
}

class ElementwiseTest : public SimdTargetTest {
 protected:
  // Calls run(rows, cols) for many sizes, then check(t, c, y) compares every element.
  ThreadPool pool_{2};
  Rng rng_{3};
};

// The mean of squares is off by (cols + 2) u at most, its root by half of it; then a division, a
// square root and two products.
TEST_P(ElementwiseTest, RmsNorm) {
  for (const int64_t cols : kWidths) {
    const TestArray x = RandomArray(rng_, 5, cols, DType::kF32, 2);
    const TestArray weight = RandomArray(rng_, 1, cols);
    TestArray y = RandomArray(rng_, 5, cols, DType::kF32, 1);
    TestArray in_place = x;
    RmsNorm(x.view(), SpanOf(weight), 1e-5F, y.view(), pool_);
    RmsNorm(in_place.view(), SpanOf(weight), 1e-5F, in_place.view(), pool_);
    for (int64_t t = 0; t < 5; ++t) {
      const double scale = 1.0 / std::sqrt(SumOf(x, t, 0.0, 2) / static_cast<double>(cols) + 1e-5F);
      for (int64_t c = 0; c < cols; ++c) {
        const double expected = x(t, c) * scale * weight(0, c);
        const double bound = (0.5 * static_cast<double>(cols + 2) + 6.0) * kUnit;
        ASSERT_LE(std::abs(y(t, c) - expected), bound * std::abs(expected)) << cols;
        ASSERT_EQ(in_place(t, c), y(t, c));
      }
    }
  }
}

// The mean is off by cols u mean|x|; what follows is as in RmsNorm, on differences.
TEST_P(ElementwiseTest, LayerNorm) {
  for (const int64_t cols : kWidths) {
    const TestArray x = RandomArray(rng_, 4, cols, DType::kF32, 2);
    const TestArray weight = RandomArray(rng_, 1, cols);
    const TestArray bias = RandomArray(rng_, 1, cols);
    TestArray y = RandomArray(rng_, 4, cols);
    LayerNorm(x.view(), SpanOf(weight), SpanOf(bias), 1e-5F, y.view(), pool_);
    const auto count = static_cast<double>(cols);
    for (int64_t t = 0; t < 4; ++t) {
      const double mean = SumOf(x, t, 0.0, 1) / count;
      double magnitude = 0.0;
      for (int64_t c = 0; c < cols; ++c) {
        magnitude = std::max(magnitude, std::abs(x(t, c)));
      }
      const double variance = SumOf(x, t, mean, 2) / count + 1e-5F;
      const double shift = (count + 2.0) * kUnit * magnitude;
      // 2 |x - mean| shift for each square, and the sum's own rounding
      const double relative = (2.0 * magnitude * 2.0 * shift + shift * shift) / variance / 2.0 +
                              (0.5 * (count + 2.0) + 6.0) * kUnit;
      for (int64_t c = 0; c < cols; ++c) {
        const double normal = (x(t, c) - mean) / std::sqrt(variance);
        const double expected = normal * weight(0, c) + bias(0, c);
        const double bound =
            std::abs(weight(0, c)) *
                (std::abs(normal) * relative + (shift + 2.0 * kUnit) / std::sqrt(variance)) +
            2.0 * kUnit * (std::abs(expected) + std::abs(bias(0, c)));
        ASSERT_LE(std::abs(y(t, c) - expected), bound) << cols;
      }
    }
  }
}

TEST_P(ElementwiseTest, Add) {
  for (const int64_t cols : kWidths) {
    const TestArray x = RandomArray(rng_, 70, cols, DType::kF32, 1);
    const TestArray before = RandomArray(rng_, 70, cols, DType::kF32, 2);
    TestArray y = before;
    Add(x.view(), y.view(), pool_);
    for (int64_t t = 0; t < 70; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(y(t, c), static_cast<float>(x(t, c) + before(t, c)));
      }
    }
  }
}

TEST_P(ElementwiseTest, Multiply) {
  for (const int64_t cols : kWidths) {
    const TestArray x = RandomArray(rng_, 70, cols, DType::kF32, 1);
    const TestArray before = RandomArray(rng_, 70, cols, DType::kF32, 2);
    TestArray y = before;
    Multiply(x.view(), y.view(), pool_);
    for (int64_t t = 0; t < 70; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(y(t, c), static_cast<float>(x(t, c) * before(t, c)));
      }
    }
  }
}

// Exponential 2^-22, one addition, one division, one product.
TEST_P(ElementwiseTest, SiluMul) {
  for (const int64_t cols : kWidths) {
    TestArray gate = RandomArray(rng_, 6, cols, DType::kF32, 2, 6.0);
    const TestArray up = RandomArray(rng_, 6, cols, DType::kF32, 1);
    gate.Set(0, 0, -100.0F);
    gate.Set(1, 0, 200.0F);
    TestArray y = RandomArray(rng_, 6, cols);
    SiluMul(gate.view(), up.view(), y.view(), pool_);
    TestArray in_place = gate;
    SiluMul(in_place.view(), up.view(), in_place.view(), pool_);
    for (int64_t t = 0; t < 6; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const double expected = gate(t, c) / (1.0 + std::exp(-gate(t, c))) * up(t, c);
        ASSERT_LE(std::abs(y(t, c) - expected), 0x1.0p-21 * std::abs(expected) + 1e-36);
        ASSERT_EQ(in_place(t, c), y(t, c));
      }
    }
  }
}

// The argument of the exponential is off by a few roundings times its size.
TEST_P(ElementwiseTest, Gelu) {
  for (const int64_t cols : kWidths) {
    const TestArray x = RandomArray(rng_, 6, cols, DType::kF32, 1, 2.0);
    TestArray tanh = x;
    TestArray exact = x;
    GeluTanh(tanh.view(), pool_);
    GeluExact(exact.view(), pool_);
    for (int64_t t = 0; t < 6; ++t) {
      for (int64_t c = 0; c < cols; ++c) {
        const double z = x(t, c);
        const double u = std::sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z);
        const double by_tanh = 0.5 * z * (1.0 + std::tanh(u));
        const double by_erf = 0.5 * z * std::erfc(-z / std::sqrt(2.0));
        const double bound = (0x1.0p-21 + 12.0 * std::abs(u) * kUnit) * std::abs(z);
        ASSERT_LE(std::abs(tanh(t, c) - by_tanh), bound);
        ASSERT_LE(std::abs(exact(t, c) - by_erf), (4.0 + 2.0 * z * z) * kUnit * std::abs(z));
      }
    }
  }
}

TEST_P(ElementwiseTest, Rope) {
  for (const int64_t half : {1, 3, 8, 16, 17, 32, 64}) {
    const int64_t heads = 3;
    const TestArray before = RandomArray(rng_, 9, heads * 2 * half, DType::kF32, 2);
    const TestArray cos = RandomArray(rng_, 30, half);
    const TestArray sin = RandomArray(rng_, 30, half);
    const std::vector<int32_t> positions = {0, 1, 2, 29, 29, 5, 7, 7, 3};
    TestArray x = before;
    Rope(x.view(), heads, positions, cos.view(), sin.view(), pool_);
    for (int64_t t = 0; t < 9; ++t) {
      const int64_t p = positions[static_cast<size_t>(t)];
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t j = 0; j < half; ++j) {
          const int64_t low = h * 2 * half + j;
          const double a = before(t, low);
          const double b = before(t, low + half);
          const double bound_low = std::abs(a * cos(p, j)) + std::abs(b * sin(p, j));
          const double bound_high = std::abs(b * cos(p, j)) + std::abs(a * sin(p, j));
          ASSERT_LE(std::abs(x(t, low) - (a * cos(p, j) - b * sin(p, j))), 2.0 * kUnit * bound_low);
          ASSERT_LE(std::abs(x(t, low + half) - (b * cos(p, j) + a * sin(p, j))),
                    2.0 * kUnit * bound_high);
        }
      }
    }
  }
}

// Also bounds the error of the exponential, whose results these are up to one sum and one division.
TEST_P(ElementwiseTest, SoftmaxRows) {
  for (const int64_t cols : kWidths) {
    const TestArray before = RandomArray(rng_, 4, cols, DType::kF32, 3, 10.0);
    TestArray x = before;
    SoftmaxRows(x.view());
    for (int64_t t = 0; t < 4; ++t) {
      double largest = before(t, 0);
      for (int64_t c = 0; c < cols; ++c) {
        largest = std::max(largest, before(t, c));
      }
      double sum = 0.0;
      for (int64_t c = 0; c < cols; ++c) {
        sum += std::exp(before(t, c) - largest);
      }
      for (int64_t c = 0; c < cols; ++c) {
        const double expected = std::exp(before(t, c) - largest) / sum;
        const double relative = 0x1.0p-21 + (static_cast<double>(cols) + 4.0) * kUnit +
                                std::abs(before(t, c) - largest) * kUnit;
        ASSERT_LE(std::abs(x(t, c) - expected), relative * expected + 1e-37);
      }
      if (t < 3) {
        ASSERT_TRUE(std::isnan(x(t, cols))) << "wrote behind a row";
      }
    }
  }
}

TEST_P(ElementwiseTest, NaNStaysNaN) {
  const float nan = std::nanf("");
  const auto with_nan = [&] {
    TestArray x = RandomArray(rng_, 2, 37);
    x.Set(0, 36, nan);
    return x;
  };
  const TestArray ones = RandomArray(rng_, 2, 37);
  TestArray x = with_nan();
  RmsNorm(x.view(), SpanOf(ones), 1e-5F, x.view(), pool_);
  EXPECT_TRUE(std::isnan(x(0, 0)) && !std::isnan(x(1, 0)));
  x = with_nan();
  LayerNorm(x.view(), SpanOf(ones), SpanOf(ones), 1e-5F, x.view(), pool_);
  EXPECT_TRUE(std::isnan(x(0, 0)) && !std::isnan(x(1, 0)));
  x = with_nan();
  SoftmaxRows(x.view());
  EXPECT_TRUE(std::isnan(x(0, 0)) && !std::isnan(x(1, 0)));
  x = with_nan();
  SiluMul(x.view(), ones.view(), x.view(), pool_);
  EXPECT_TRUE(std::isnan(x(0, 36)) && !std::isnan(x(0, 0)));
  x = with_nan();
  GeluTanh(x.view(), pool_);
  EXPECT_TRUE(std::isnan(x(0, 36)) && !std::isnan(x(0, 0)));
  x = with_nan();
  GeluExact(x.view(), pool_);
  EXPECT_TRUE(std::isnan(x(0, 36)) && !std::isnan(x(0, 0)));
}

TEST_P(ElementwiseTest, SameBitsForAnyNumberOfThreads) {
  ThreadPool one(1);
  const TestArray x = RandomArray(rng_, 400, 130);
  const TestArray weight = RandomArray(rng_, 1, 130);
  TestArray y = x;
  TestArray same = x;
  RmsNorm(x.view(), SpanOf(weight), 1e-5F, y.view(), pool_);
  RmsNorm(x.view(), SpanOf(weight), 1e-5F, same.view(), one);
  EXPECT_TRUE(SameBits(y, same));
  SiluMul(x.view(), y.view(), y.view(), pool_);
  SiluMul(x.view(), same.view(), same.view(), one);
  EXPECT_TRUE(SameBits(y, same));
}

KVC_FOR_EVERY_SIMD_TARGET(ElementwiseTest);

TEST(ElementwiseErrors, NameWhatDoesNotFit) {
  ThreadPool pool(1);
  Rng rng(1);
  TestArray x = RandomArray(rng, 2, 8);
  TestArray y = RandomArray(rng, 2, 9);
  const TestArray table = RandomArray(rng, 4, 2);
  EXPECT_KVC_ERROR(Add(x.view(), y.view(), pool), kBadShape,
                   "Add: expected matrices of one size, got [2, 8] and [2, 9]");
  EXPECT_KVC_ERROR(RmsNorm(x.view(), SpanOf(y), 1e-5F, x.view(), pool), kBadShape,
                   "RmsNorm: expected 8 weights");
  const std::vector<int32_t> beyond = {0, 4};
  EXPECT_KVC_ERROR(Rope(x.view(), 2, beyond, table.view(), table.view(), pool), kBadShape,
                   "expected a position below 4, got 4");
  EXPECT_KVC_ERROR(Rope(x.view(), 3, beyond, table.view(), table.view(), pool), kBadShape,
                   "3 heads");
  MatrixF empty(nullptr, 0, 8);
  SoftmaxRows(empty);
  GeluTanh(empty, pool);
}

}  // namespace
}  // namespace kvc::kernels
