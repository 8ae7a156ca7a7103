#include "kernels/cuda/heads.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

class HeadsTest : public testing::TestWithParam<DType> {
 protected:
  void RunProjection(
      int64_t rows, int64_t heads, int64_t groups, int64_t in, int64_t out, bool with_bias);
  Rng rng_{51};
};

// Sums in float are off by a rounding of their size for each term; then y is rounded.
void HeadsTest::RunProjection(
    int64_t rows, int64_t heads, int64_t groups, int64_t in, int64_t out, bool with_bias) {
  const TestRows x = RandomRows(rng_, GetParam(), rows, heads * in, 3);
  const TestRows columns = RandomRows(rng_, DType::kF32, groups * in, out, 2);
  const TestRows y = RandomRows(rng_, GetParam(), rows, heads * out, 5);
  const std::vector<float> bias = RandomFloats(rng_, groups * out);
  const DeviceArray<float> device_bias(bias);
  ProjectHeads(x.view(), heads, columns.view(), groups, with_bias ? device_bias.data() : nullptr,
               y.view(), nullptr);
  const std::vector<float> now = y.Now();
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t column = 0; column < y.stride; ++column) {
      const double got = now[static_cast<size_t>(t * y.stride + column)];
      if (column >= y.width) {
        ASSERT_EQ(got, y.at(t, column)) << "padding";
        continue;
      }
      const int64_t head = column / out;
      const int64_t r = column % out;
      const int64_t g = head / (heads / groups);
      double want = with_bias ? bias[static_cast<size_t>(g * out + r)] : 0.0;
      double size = std::abs(want);
      for (int64_t d = 0; d < in; ++d) {
        const double term = x.at(t, head * in + d) * columns.at(g * in + d, r);
        want += term;
        size += std::abs(term);
      }
      const double bound = UnitOf(GetParam()) * std::abs(want) +
                           static_cast<double>(in + 4) * 0x1p-24 * size + 0x1p-25;
      ASSERT_TRUE(std::abs(got - want) <= bound) << t << " " << column << " " << got << " " << want;
    }
  }
}

TEST_P(HeadsTest, ProjectsEachHeadByItsGroup) {
  UnderOrders([&] {
    RunProjection(0, 2, 1, 8, 8, true);
    RunProjection(1, 1, 1, 1, 1, false);
    RunProjection(3, 6, 2, 13, 7, true);
    RunProjection(9, 4, 4, 7, 13, false);
  });
  RunProjection(1, 9, 3, 64, 40, true);
  RunProjection(70, 2, 1, 64, 33, false);
  RunProjection(10, 2, 2, 128, 96, true);
  RunProjection(2, 2, 1, 24, 200, true);
}

TEST_P(HeadsTest, TurnsPairsByTheirAngles) {
  struct Case {
    int64_t rows, pairs, half, pad;
  };
  for (const auto& [rows, count, half, pad] :
       std::vector<Case>{{0, 4, 4, 0}, {1, 1, 1, 0}, {3, 7, 32, 2}, {5, 100, 16, 0}}) {
    const int64_t most = 50;
    const std::vector<float> cos = RandomFloats(rng_, most * half);
    const std::vector<float> sin = RandomFloats(rng_, most * half);
    std::vector<int32_t> pairs;
    for (int64_t i = 0; i < count; ++i) {
      pairs.push_back(static_cast<int32_t>(rng_.NextBelow(half + 1)) - 1);
    }
    std::vector<int32_t> positions;
    for (int64_t t = 0; t < rows; ++t) {
      positions.push_back(static_cast<int32_t>(rng_.NextBelow(most)));
    }
    const DeviceArray<float> dcos(cos);
    const DeviceArray<float> dsin(sin);
    const DeviceArray<int32_t> dpairs(pairs);
    const DeviceArray<int32_t> dpositions(positions);
    const TestRows x = RandomRows(rng_, GetParam(), rows, 2 * count, pad);
    RotatePairs(x.view(), dpairs.data(), dpositions.data(), {dcos.data(), dsin.data(), half},
                nullptr);
    const std::vector<float> now = x.Now();
    for (int64_t t = 0; t < rows; ++t) {
      for (int64_t column = 0; column < x.stride; ++column) {
        const double got = now[static_cast<size_t>(t * x.stride + column)];
        const int32_t pair = column < x.width ? pairs[static_cast<size_t>(column / 2)] : -1;
        if (pair < 0) {
          ASSERT_EQ(got, x.at(t, column));
          continue;
        }
        const auto angle = static_cast<size_t>(positions[static_cast<size_t>(t)] * half + pair);
        const double other = x.at(t, column ^ 1);
        const double want = column % 2 == 0 ? x.at(t, column) * cos[angle] - other * sin[angle]
                                            : x.at(t, column) * cos[angle] + other * sin[angle];
        ASSERT_TRUE(std::abs(got - want) <= UnitOf(GetParam()) * std::abs(want) + 0x1p-19)
            << t << " " << column;
      }
    }
  }
}

TEST_P(HeadsTest, ShapesThatDifferAreNamed) {
  const TestRows x = RandomRows(rng_, GetParam(), 2, 8);
  const TestRows y = RandomRows(rng_, GetParam(), 2, 6);
  const TestRows odd = RandomRows(rng_, GetParam(), 2, 5);
  const TestRows columns = RandomRows(rng_, DType::kF32, 4, 4);
  EXPECT_THROW(ProjectHeads(x.view(), 2, columns.view(), 1, nullptr, y.view(), nullptr), Error);
  EXPECT_THROW(ProjectHeads(x.view(), 3, columns.view(), 2, nullptr, x.view(), nullptr), Error);
  EXPECT_THROW(RotatePairs(odd.view(), nullptr, nullptr, {}, nullptr), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, HeadsTest, testing::ValuesIn(kFloatTypes));

}  // namespace
}  // namespace kvc::cuda
