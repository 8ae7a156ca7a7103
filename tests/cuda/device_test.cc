// Every function of device.cuh against its definition: fragment layouts by the formulas of the PTX
// ISA, sections "Matrix Fragments for mma.m16n8k16", "ldmatrix", "movmatrix". The same tests run on
// the emulated libraries and, where there is one, on a device.

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "tests/cuda/device_array.h"
#include "tests/cuda/device_test_kernels.h"

namespace kvc::cuda {
namespace {

// Element i of a lane's fragment of a [16, 16], of b [16, 8] and of d [16, 8].
int RowOfA(int lane, int i) { return lane / 4 + (i < 2 || (4 <= i && i < 6) ? 0 : 8); }
int ColumnOfA(int lane, int i) { return lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0); }
int RowOfB(int lane, int i) { return lane % 4 * 2 + i % 2 + (i >= 2 ? 8 : 0); }
int ColumnOfB(int lane, int /*i*/) { return lane / 4; }
int RowOfD(int lane, int i) { return lane / 4 + (i < 2 ? 0 : 8); }
int ColumnOfD(int lane, int i) { return lane % 4 * 2 + i % 2; }

float A(int row, int column) { return static_cast<float>((row * 7 + column * 5) % 13 - 6); }
float B(int row, int column) { return static_cast<float>((row * 3 + column * 11) % 9 - 4); }

class ProductTest : public testing::TestWithParam<bool> {};

TEST_P(ProductTest, FollowsTheIsasFragments) {
  const bool f16 = GetParam();
  const auto bits = [&](float x) { return f16 ? FloatToF16(x) : FloatToBF16(x); };
  std::vector<uint32_t> a(32 * 4, 0);
  std::vector<uint32_t> b(32 * 2, 0);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const uint32_t x = bits(A(RowOfA(lane, i), ColumnOfA(lane, i)));
      a[4 * lane + i / 2] |= x << (16 * (i % 2));
    }
    for (int i = 0; i < 4; ++i) {
      const uint32_t x = bits(B(RowOfB(lane, i), ColumnOfB(lane, i)));
      b[2 * lane + i / 2] |= x << (16 * (i % 2));
    }
  }
  UnderOrders([&] {
    const DeviceArray<uint32_t> da(a);
    const DeviceArray<uint32_t> db(b);
    const DeviceArray<float> dd(std::vector<float>(32 * 4, 0.5F));
    RunProduct(f16, da.data(), db.data(), dd.data(), nullptr);
    const std::vector<float> d = dd.Host();
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        float expected = 0.5F;  // small integers: every order of summing gives the same
        for (int k = 0; k < 16; ++k) {
          expected += A(RowOfD(lane, i), k) * B(k, ColumnOfD(lane, i));
        }
        ASSERT_EQ(d[4 * lane + i], expected) << lane << " " << i;
      }
    }
  });
}
INSTANTIATE_TEST_SUITE_P(Types, ProductTest, testing::Bool());

TEST(DeviceTest, LoadsMatricesAsTheIsaSays) {
  std::vector<uint16_t> tile(32 * 8);
  std::iota(tile.begin(), tile.end(), uint16_t{100});
  const auto at = [&](int matrix, int row, int column) -> uint32_t {
    return tile[(8 * matrix + row) * 8 + column];
  };
  UnderOrders([&] {
    const DeviceArray<uint16_t> from(tile);
    const DeviceArray<uint32_t> plain(128);
    const DeviceArray<uint32_t> transposed(128);
    const DeviceArray<uint32_t> moved(32);
    RunLoadMatrices(from.data(), plain.data(), transposed.data(), moved.data(), nullptr);
    const auto p = plain.Host();
    const auto t = transposed.Host();
    const auto m = moved.Host();
    for (int lane = 0; lane < 32; ++lane) {
      const int i = lane / 4;
      const int j = lane % 4 * 2;
      for (int matrix = 0; matrix < 4; ++matrix) {
        ASSERT_EQ(p[4 * lane + matrix], at(matrix, i, j) | at(matrix, i, j + 1) << 16);
        ASSERT_EQ(t[4 * lane + matrix], at(matrix, j, i) | at(matrix, j + 1, i) << 16);
      }
      ASSERT_EQ(m[lane], at(0, j, i) | at(0, j + 1, i) << 16);
    }
  });
}

TEST(DeviceTest, LanesExchangeValues) {
  std::vector<float> x(32);
  for (int lane = 0; lane < 32; ++lane) {
    x[lane] = static_cast<float>(lane * lane % 37 - 9);
  }
  uint32_t odd = 0;
  for (int lane = 0; lane < 32; ++lane) {
    odd |= (static_cast<int>(x[lane]) % 2 != 0 ? 1U : 0U) << lane;
  }
  UnderOrders([&] {
    const DeviceArray<float> from(x);
    const DeviceArray<float> to(32 * 6);
    RunExchange(from.data(), to.data(), nullptr);
    const auto out = to.Host();
    for (int lane = 0; lane < 32; ++lane) {
      float sum = 0.0F;  // of integers: exact
      float some = 0.0F;
      float most = -1e9F;
      for (int other = 0; other < 32; ++other) {
        sum += x[other];
        if (other % 4 == lane % 4) {
          some += x[other];
          most = std::max(most, x[other]);
        }
      }
      const std::vector<float> expected = {x[7], x[lane ^ 4], static_cast<float>(odd >> 16),
                                           sum,  some,        most};
      for (int i = 0; i < 6; ++i) {
        ASSERT_EQ(out[6 * lane + i], expected[i]) << lane << " " << i;
      }
    }
  });
}

TEST(DeviceTest, NamedBarriersHandOverInOrder) {
  UnderOrders([&] {
    const DeviceArray<int> to(2 * 9);
    RunNamedBarriers(to.data(), 9, nullptr);
    const auto out = to.Host();
    for (int i = 0; i < 18; ++i) {
      ASSERT_EQ(out[i], i / 2 * 10 + i % 2);
    }
  });
}

TEST(DeviceTest, CopiesArriveAfterTheirWait) {
  for (const int count : {1, 31, 32, 33, 200}) {
    std::vector<uint32_t> values(static_cast<size_t>(count) * 4);
    std::iota(values.begin(), values.end(), 1U);
    UnderOrders([&] {
      const DeviceArray<uint32_t> from(values);
      const DeviceArray<uint32_t> to(values.size());
      RunCopies(from.data(), to.data(), count, nullptr);
      ASSERT_EQ(to.Host(), values) << count;
    });
  }
}

TEST(DeviceTest, TheLastBlockSeesAllOthers) {
  UnderOrders([&] {
    const int blocks = 97;
    const DeviceArray<float> parts(blocks);
    const DeviceArray<int> counters(std::vector<int>{0, 0});
    const DeviceArray<float> sum(1);
    for (int times = 1; times <= 2; ++times) {
      RunLastBlock(blocks, parts.data(), counters.data(), sum.data(), counters.data() + 1, nullptr);
      ASSERT_EQ(sum.Host()[0], 96.0F * 97.0F / 2.0F);
      ASSERT_EQ(counters.Host(), (std::vector<int>{0, times}));
    }
  });
}

}  // namespace
}  // namespace kvc::cuda
