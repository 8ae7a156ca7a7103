#include "kernels/cuda/product.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

// A library with what it needs for these sizes.
struct Opened {
  DeviceBuffer workspace;
  ProductLibrary library;

  Opened(int64_t rows, int64_t in)
      : workspace(ProductWorkspaceBytes(rows, in)), library(workspace.data(), workspace.bytes()) {}
};

struct Case {
  int64_t rows, out, in;
  bool with_bias = false;
  bool add = false;
  int64_t pad = 0;  // elements behind rows of x and W
};

// x, W, bias and y of a case, and what y must be.
class ProductLibraryTest : public testing::TestWithParam<DType> {
 protected:
  void Check(const Case& c);
  Rng rng_{31};
};

// x as the product sees it: more than 8 rows are rounded to the weights' type, or not, where the
// library could not read them.
double Rounded(double x, DType type) {
  auto value = static_cast<float>(x);
  std::byte bytes[4];
  ConvertFromFloat(&value, 1, type, bytes);
  ConvertToFloat(type, bytes, 1, &value);
  return value;
}

// Sums in float are off by `in` u of the sum of sizes at most.
void ExpectProduct(const Case& c,
                   const TestRows& x,
                   const TestRows& w,
                   const std::vector<float>& bias,
                   const TestRows& y) {
  const std::vector<float> now = y.Now();
  const DType seen = c.rows > 8 ? w.dtype : DType::kF32;
  for (int64_t r = 0; r < c.rows; ++r) {
    for (int64_t o = 0; o < c.out; ++o) {
      double want = (c.with_bias ? bias[static_cast<size_t>(o)] : 0.0) + (c.add ? y.at(r, o) : 0.0);
      double size = std::abs(want);
      for (int64_t i = 0; i < c.in; ++i) {
        const double product = Rounded(x.at(r, i), seen) * w.at(o, i);
        want += product;
        size += std::abs(product);
      }
      const double got = now[static_cast<size_t>(r * y.stride + o)];
      const double bound = static_cast<double>(c.in + 4) * 0x1p-24 * size;
      ASSERT_TRUE(std::abs(got - want) <= bound) << c.rows << " " << c.out << " " << c.in;
    }
    // What lies behind a row stays.
    for (int64_t o = c.out; o < y.stride; ++o) {
      ASSERT_EQ(now[static_cast<size_t>(r * y.stride + o)], y.at(r, o));
    }
  }
}

void ProductLibraryTest::Check(const Case& c) {
  const TestRows x = RandomRows(rng_, DType::kF32, c.rows, c.in, c.pad);
  const TestRows w = RandomRows(rng_, GetParam(), c.out, c.in, c.pad);
  const TestRows y = RandomRows(rng_, DType::kF32, c.rows, c.out, 3);
  const std::vector<float> bias = RandomFloats(rng_, c.out);
  const DeviceArray<float> on_device(bias);
  Opened opened(c.rows, c.in);
  opened.library.Product(x.view(), w.view(), c.with_bias ? on_device.data() : nullptr, c.add,
                         y.view(), nullptr);
  ExpectProduct(c, x, w, bias, y);
}

TEST_P(ProductLibraryTest, AgreesWithDoubleOverOddShapes) {
  for (const int64_t rows : {0, 1, 8, 9, 33}) {
    for (const int64_t out : {1, 15, 40}) {
      for (const int64_t in : {1, 13, 64, 200}) Check({rows, out, in});
    }
  }
}

TEST_P(ProductLibraryTest, BiasResidualAndStrides) {
  for (const int64_t rows : {3, 20}) {
    Check({rows, 24, 64, true, false});
    Check({rows, 24, 64, false, true, 8});
    Check({rows, 7, 63, true, true, 1});
  }
}

// Weights are converted in blocks; here there are several, and the last one is smaller.
TEST_P(ProductLibraryTest, MoreWeightsThanABlock) { Check({10, 700, 1000, true, false}); }

TEST_P(ProductLibraryTest, IsCapturedWithItsArguments) {
  const TestRows x = RandomRows(rng_, DType::kF32, 12, 40);
  const TestRows w = RandomRows(rng_, GetParam(), 9, 40);
  const TestRows y = RandomRows(rng_, DType::kF32, 12, 9, 3);
  Opened opened(12, 40);
  Stream stream;
  stream.BeginCapture();
  opened.library.Product(x.view(), w.view(), nullptr, false, y.view(), stream.handle());
  const Graph graph = stream.EndCapture();
  EXPECT_EQ(y.Now(), y.values) << "capturing runs nothing";
  for (int replay = 0; replay < 2; ++replay) {
    FillZero(y.view().data, y.values.size() * sizeof(float), stream.handle());
    CopyToDevice(y.device.data(), y.values.data(), y.values.size() * sizeof(float),
                 stream.handle());
    graph.Replay(stream.handle());
    Synchronize(stream.handle());
    ExpectProduct({12, 9, 40}, x, w, {}, y);
  }
}

TEST_P(ProductLibraryTest, IsDeterministic) {
  const TestRows x = RandomRows(rng_, DType::kF32, 17, 100);
  const TestRows w = RandomRows(rng_, GetParam(), 30, 100);
  const TestRows y = RandomRows(rng_, DType::kF32, 17, 30);
  Opened opened(17, 100);
  const auto run = [&] {
    opened.library.Product(x.view(), w.view(), nullptr, false, y.view(), nullptr);
    return y.Now();
  };
  const std::vector<float> expected = run();
  UnderOrders([&] { EXPECT_EQ(run(), expected); });
}

TEST_P(ProductLibraryTest, SaysWhatDoesNotFit) {
  const TestRows x = RandomRows(rng_, DType::kF32, 9, 16);
  const TestRows w = RandomRows(rng_, GetParam(), 4, 16);
  const TestRows y = RandomRows(rng_, DType::kF32, 9, 4);
  const TestRows wider = RandomRows(rng_, DType::kF32, 9, 5);
  const TestRows half = RandomRows(rng_, DType::kF16, 9, 4);
  Opened opened(9, 16);
  const auto product = [&](const TestRows& to, ProductLibrary& library) {
    library.Product(x.view(), w.view(), nullptr, false, to.view(), nullptr);
  };
  EXPECT_THROW(product(wider, opened.library), Error);
  EXPECT_THROW(product(half, opened.library), Error);
  if (GetParam() == DType::kF32) return;
  Opened small(0, 0);
  EXPECT_THROW(product(y, small.library), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, ProductLibraryTest, testing::ValuesIn(kFloatTypes));

}  // namespace
}  // namespace kvc::cuda
