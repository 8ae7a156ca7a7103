#include "kernels/cuda/norm.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

struct Case {
  int64_t rows, heads, width, pad;
};
// Slices of a warp and of a block, whole chunks and others.
const std::vector<Case> kCases = {{0, 1, 8, 0},  {1, 1, 1, 0},  {1, 1, 576, 0},  {3, 5, 64, 0},
                                  {2, 3, 33, 1}, {7, 1, 40, 8}, {2, 1, 1536, 0}, {1, 2, 1027, 3}};

class NormTest : public testing::TestWithParam<DType> {
 protected:
  Rng rng_{12};
};

// The sum is off by width u of its terms' sizes at most, the root by half of that; then few
// roundings.
TEST_P(NormTest, RmsOfEachHead) {
  UnderOrders([&] {
    for (const auto& [rows, heads, width, pad] : kCases) {
      const TestRows x = RandomRows(rng_, GetParam(), rows, heads * width, pad);
      const TestRows y = RandomRows(rng_, GetParam(), rows, heads * width, 0);
      const std::vector<float> weight = RandomFloats(rng_, width);
      const DeviceArray<float> dweight(weight);
      RmsNorm(x.view(), heads, dweight.data(), 1e-5F, y.view(), nullptr);
      RmsNorm(x.view(), heads, dweight.data(), 1e-5F, x.view(), nullptr);
      const std::vector<float> now = y.Now();
      const std::vector<float> in_place = x.Now();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < heads * width; ++c) {
          double sum = 0.0;
          for (int64_t d = 0; d < width; ++d) {
            sum += std::pow(x.at(r, c / width * width + d), 2);
          }
          const double want = x.at(r, c) / std::sqrt(sum / static_cast<double>(width) + 1e-5F) *
                              weight[static_cast<size_t>(c % width)];
          const double got = now[static_cast<size_t>(r * y.stride + c)];
          const double bound = UnitOf(y.dtype) + (static_cast<double>(width) / 2 + 8) * 0x1p-24;
          ASSERT_TRUE(std::abs(got - want) <= bound * std::abs(want) + 0x1p-25)
              << width << " " << c << " " << got << " " << want;
          ASSERT_EQ(in_place[static_cast<size_t>(r * x.stride + c)], got);
        }
      }
    }
  });
}

TEST_P(NormTest, LayerOfEachHead) {
  for (const auto& [rows, heads, width, pad] : kCases) {
    for (const bool with_bias : {false, true}) {
      const TestRows x = RandomRows(rng_, GetParam(), rows, heads * width, pad);
      const TestRows y = RandomRows(rng_, GetParam(), rows, heads * width, 0);
      const std::vector<float> weight = RandomFloats(rng_, width);
      const std::vector<float> bias = RandomFloats(rng_, width);
      const DeviceArray<float> dweight(weight);
      const DeviceArray<float> dbias(bias);
      LayerNorm(x.view(), heads, dweight.data(), with_bias ? dbias.data() : nullptr, 1e-5F,
                y.view(), nullptr);
      const std::vector<float> now = y.Now();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < heads * width; ++c) {
          const int64_t first = c / width * width;
          double mean = 0.0;
          double var = 0.0;
          for (int64_t d = 0; d < width; ++d) {
            mean += x.at(r, first + d) / static_cast<double>(width);
          }
          for (int64_t d = 0; d < width; ++d) {
            var += std::pow(x.at(r, first + d) - mean, 2) / static_cast<double>(width);
          }
          const double scale = weight[static_cast<size_t>(c - first)] / std::sqrt(var + 1e-5F);
          const double b = with_bias ? bias[static_cast<size_t>(c - first)] : 0.0;
          const double want = (x.at(r, c) - mean) * scale + b;
          const double got = now[static_cast<size_t>(r * y.stride + c)];
          // The mean's error, width u at most of mean |x| < 2, passes through the scale.
          const double bound = UnitOf(y.dtype) * std::abs(want) +
                               (static_cast<double>(width) + 8) * 0x1p-24 *
                                   (2.0 * std::abs(scale) + std::abs(want) + std::abs(b));
          ASSERT_TRUE(std::abs(got - want) <= bound + 0x1p-25) << width << " " << c;
        }
      }
    }
  }
}

TEST(MeanSquaredNorm, SumsAllRows) {
  Rng rng(14);
  UnderOrders([&] {
    for (const auto& [rows, heads, width, pad] : kCases) {
      const TestRows x = RandomRows(rng, DType::kF32, rows, heads * width, pad);
      const DeviceArray<double> mean(size_t{1});
      MeanSquaredNorm(x.view(), mean.data(), nullptr);
      double want = 0.0;
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < x.width; ++c) {
          want += x.at(r, c) * x.at(r, c) / static_cast<double>(rows);
        }
      }
      ASSERT_NEAR(mean.Host()[0], want, 1e-12 * want);
    }
  });
  const TestRows x = RandomRows(rng, DType::kF16, 1, 8);
  EXPECT_THROW(MeanSquaredNorm(x.view(), nullptr, nullptr), Error);
}

TEST_P(NormTest, RefusesHeadsThatDoNotDivide) {
  const TestRows x = RandomRows(rng_, GetParam(), 2, 10);
  EXPECT_THROW(RmsNorm(x.view(), 3, nullptr, 0.0F, x.view(), nullptr), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, NormTest, testing::ValuesIn(kFloatTypes));

}  // namespace
}  // namespace kvc::cuda
