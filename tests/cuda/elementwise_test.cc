#include "kernels/cuda/elementwise.h"

#include <functional>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

struct Size {
  int64_t rows, width, pad;
};
// Widths of whole chunks and others, rows that begin at odd addresses, nothing at all.
const std::vector<Size> kSizes = {{0, 8, 0},  {1, 1, 0},  {1, 8, 0},   {3, 7, 0},
                                  {2, 16, 0}, {5, 33, 3}, {2, 576, 8}, {3, 40, 1}};

double Silu(double z) { return z / (1.0 + std::exp(-z)); }
double GeluTanh(double z) {
  return 0.5 * z * (1.0 + std::tanh(std::sqrt(2.0 / M_PI) * (z + 0.044715 * z * z * z)));
}
double GeluExact(double z) { return 0.5 * z * (1.0 + std::erf(z / std::sqrt(2.0))); }

class ElementwiseTest : public testing::TestWithParam<DType> {
 protected:
  // Every element within the dtype's rounding and a few roundings of float of the reference; what
  // lies behind the rows untouched.
  void Compare(const TestRows& y, const std::function<double(int64_t, int64_t)>& expected) {
    const std::vector<float> now = y.Now();
    for (int64_t r = 0; r < y.rows; ++r) {
      for (int64_t c = 0; c < y.stride; ++c) {
        const double got = now[static_cast<size_t>(r * y.stride + c)];
        if (c >= y.width) {
          ASSERT_EQ(got, y.at(r, c)) << "padding";
          continue;
        }
        const double want = expected(r, c);
        // Functions of sums that cancel (1 + tanh) are off by roundings of 1, not of the result.
        const double bound = UnitOf(y.dtype) * std::abs(want) +
                             16.0 * 0x1p-24 * (1.0 + std::abs(want)) +
                             (y.dtype == DType::kF16 ? 0x1p-25 : 0.0);
        ASSERT_TRUE(std::abs(got - want) <= bound) << r << " " << c << " " << got << " " << want;
      }
    }
  }
  Rng rng_{11};
};

TEST_P(ElementwiseTest, Add) {
  UnderOrders([&] {
    for (const auto& [rows, width, pad] : kSizes) {
      const TestRows x = RandomRows(rng_, GetParam(), rows, width, pad);
      const TestRows y = RandomRows(rng_, GetParam(), rows, width, 2 * pad);
      Add(x.view(), y.view(), nullptr);
      Compare(y, [&](int64_t r, int64_t c) { return x.at(r, c) + y.at(r, c); });
    }
  });
}

TEST_P(ElementwiseTest, Multiply) {
  UnderOrders([&] {
    for (const auto& [rows, width, pad] : kSizes) {
      const TestRows x = RandomRows(rng_, GetParam(), rows, width, pad);
      const TestRows y = RandomRows(rng_, GetParam(), rows, width, 2 * pad);
      Multiply(x.view(), y.view(), nullptr);
      Compare(y, [&](int64_t r, int64_t c) { return x.at(r, c) * y.at(r, c); });
    }
  });
}

TEST_P(ElementwiseTest, Activations) {
  const std::vector<std::pair<Activation, double (*)(double)>> all = {
      {Activation::kSilu, Silu},
      {Activation::kGeluTanh, GeluTanh},
      {Activation::kGeluExact, GeluExact}};
  for (const auto& [f, reference] : all) {
    for (const auto& [rows, width, pad] : kSizes) {
      const TestRows x = RandomRows(rng_, GetParam(), rows, width, pad);
      const TestRows y = RandomRows(rng_, GetParam(), rows, width);
      const TestRows up = RandomRows(rng_, GetParam(), rows, width);
      Activate(f, x.view(), y.view(), nullptr);
      Compare(y, [&](int64_t r, int64_t c) { return reference(x.at(r, c)); });
      ActivateMul(f, x.view(), up.view(), up.view(), nullptr);
      Compare(up, [&](int64_t r, int64_t c) { return reference(x.at(r, c)) * up.at(r, c); });
    }
  }
}

TEST_P(ElementwiseTest, SiluOfFarValues) {
  const TestRows x(GetParam(), 1, 4, 0, {-200.0F, 200.0F, -1e4F, 0.0F});
  Activate(Activation::kSilu, x.view(), x.view(), nullptr);
  Compare(x, [&](int64_t r, int64_t c) { return Silu(x.at(r, c)); });
}

TEST_P(ElementwiseTest, RotatesPairsByTheTable) {
  struct Case {
    int64_t rows, heads, width, half, pad;
  };
  for (const auto& [rows, heads, width, half, pad] :
       std::vector<Case>{{0, 2, 8, 4, 0}, {1, 1, 2, 1, 0}, {3, 3, 64, 32, 0}, {4, 2, 10, 3, 5}}) {
    const int64_t most = 50;
    const std::vector<float> cos = RandomFloats(rng_, most * half);
    const std::vector<float> sin = RandomFloats(rng_, most * half);
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    for (int32_t& position : positions) {
      position = static_cast<int32_t>(rng_.NextBelow(most));
    }
    const DeviceArray<float> dcos(cos);
    const DeviceArray<float> dsin(sin);
    const DeviceArray<int32_t> dpositions(positions);
    const TestRows x = RandomRows(rng_, GetParam(), rows, heads * width, pad);
    Rotate(x.view(), heads, dpositions.data(), {dcos.data(), dsin.data(), half}, nullptr);
    Compare(x, [&](int64_t r, int64_t column) -> double {
      const int64_t d = column % width;
      const int64_t j = d % half;
      if (d >= 2 * half) {
        return x.at(r, column);
      }
      const auto angle = static_cast<size_t>(positions[static_cast<size_t>(r)] * half + j);
      const double a = x.at(r, column - d + j);
      const double b = x.at(r, column - d + j + half);
      return d < half ? a * cos[angle] - b * sin[angle] : b * cos[angle] + a * sin[angle];
    });
  }
}

TEST_P(ElementwiseTest, EmbedsRows) {
  for (const auto& [rows, width, pad] : kSizes) {
    const TestRows table = RandomRows(rng_, GetParam(), 9, width, pad);
    std::vector<int32_t> ids(static_cast<size_t>(rows));
    for (int32_t& id : ids) {
      id = static_cast<int32_t>(rng_.NextBelow(9));
    }
    const DeviceArray<int32_t> dids(ids);
    for (const DType to : {GetParam(), DType::kF32}) {
      const TestRows y = RandomRows(rng_, to, rows, width, pad);
      Embed(dids.data(), table.view(), y.view(), nullptr);
      const std::vector<float> now = y.Now();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < width; ++c) {
          ASSERT_EQ(now[static_cast<size_t>(r * y.stride + c)],
                    table.at(ids[static_cast<size_t>(r)], c));
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, CopiesColumns) {
  for (const auto& [rows, width, pad] : kSizes) {
    const TestRows x = RandomRows(rng_, GetParam(), rows, width, 2 * pad);
    for (const DType to : {GetParam(), DType::kF32}) {
      const TestRows y = RandomRows(rng_, to, rows, width, pad);
      Copy(x.view(), y.view(), nullptr);
      const std::vector<float> now = y.Now();
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < y.stride; ++c) {
          ASSERT_EQ(now[static_cast<size_t>(r * y.stride + c)],
                    c < width ? x.at(r, c) : y.at(r, c));
        }
      }
    }
  }
}

TEST_P(ElementwiseTest, ShapesThatDifferAreNamed) {
  const TestRows x = RandomRows(rng_, GetParam(), 2, 8);
  const TestRows y = RandomRows(rng_, GetParam(), 2, 9);
  EXPECT_THROW(Add(x.view(), y.view(), nullptr), Error);
  EXPECT_THROW(Copy(x.view(), y.view(), nullptr), Error);
  EXPECT_THROW(Rotate(y.view(), 2, nullptr, {}, nullptr), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, ElementwiseTest, testing::ValuesIn(kFloatTypes));

}  // namespace
}  // namespace kvc::cuda
