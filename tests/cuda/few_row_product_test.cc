#include "kernels/cuda/few_row_product.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

class FewRowProductTest : public testing::TestWithParam<std::tuple<DType, DType>> {
 protected:
  void Run(int64_t rows, int64_t out, int64_t in, bool with_bias, bool add, int64_t pad = 8);
  Rng rng_{13};
};

// Sums in float are off by `in` u of the sum of sizes at most; then y is rounded.
void FewRowProductTest::Run(
    int64_t rows, int64_t out, int64_t in, bool with_bias, bool add, int64_t pad) {
  const auto [type, weight_type] = GetParam();
  const TestRows x = RandomRows(rng_, type, rows, in, pad);
  const TestRows w = RandomRows(rng_, weight_type, out, in, 2 * pad);
  const TestRows y = RandomRows(rng_, type, rows, out, 3);
  const std::vector<float> bias = RandomFloats(rng_, out);
  const DeviceArray<float> dbias(bias);
  FewRowProduct(x.view(), w.view(), with_bias ? dbias.data() : nullptr, add, y.view(), nullptr);
  const std::vector<float> now = y.Now();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t o = 0; o < out; ++o) {
      double want = (with_bias ? bias[static_cast<size_t>(o)] : 0.0) + (add ? y.at(r, o) : 0.0);
      double size = std::abs(want);
      for (int64_t i = 0; i < in; ++i) {
        want += x.at(r, i) * w.at(o, i);
        size += std::abs(x.at(r, i) * w.at(o, i));
      }
      const double got = now[static_cast<size_t>(r * y.stride + o)];
      const double bound =
          UnitOf(type) * std::abs(want) + static_cast<double>(in + 4) * 0x1p-24 * size;
      ASSERT_TRUE(std::abs(got - want) <= bound) << rows << " " << out << " " << in;
    }
  }
}

TEST_P(FewRowProductTest, AnyRowsAndWidths) {
  UnderOrders([&] {
    for (const int64_t rows : {0, 1, 2, 3, 5, 8}) {
      for (const int64_t out : {1, 15, 16, 33}) {
        for (const int64_t in : {8, 264}) {
          Run(rows, out, in, false, false);
        }
      }
    }
  });
}

TEST_P(FewRowProductTest, BiasAndResidual) {
  Run(1, 40, 576, true, false);
  Run(3, 40, 64, false, true);
  Run(8, 7, 64, true, true);
}

// Whole chunks and what is left, and rows that begin anywhere.
TEST_P(FewRowProductTest, RaggedWidths) {
  for (const int64_t in : {1, 7, 9, 13, 63, 300}) {
    for (const int64_t pad : {int64_t{0}, int64_t{1}, 32 - in % 8}) {
      Run(1, 17, in, true, false, pad);
      Run(6, 5, in, false, true, pad);
    }
  }
}

TEST_P(FewRowProductTest, RefusesWhatItIsNotFor) {
  const auto [type, weight_type] = GetParam();
  const TestRows x = RandomRows(rng_, type, 9, 16);
  const TestRows w = RandomRows(rng_, weight_type, 4, 16);
  const TestRows y = RandomRows(rng_, type, 9, 4);
  EXPECT_THROW(FewRowProduct(x.view(), w.view(), nullptr, false, y.view(), nullptr), Error);
}

INSTANTIATE_TEST_SUITE_P(Types,
                         FewRowProductTest,
                         testing::Combine(testing::Values(DType::kF32, DType::kBF16),
                                          testing::ValuesIn(kFloatTypes)));

}  // namespace
}  // namespace kvc::cuda
