#include "kernels/cuda/sampling.h"

#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "kernels/sampling.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Rows of logits, `pad` floats apart that must not be looked at.
struct Logits {
  int64_t rows, width, stride;
  std::vector<float> values;
  DeviceArray<float> device;

  Logits(int64_t num, int64_t columns, int64_t pad, std::vector<float> x)
      : rows(num), width(columns), stride(columns + pad), values(std::move(x)), device(values) {}
  [[nodiscard]] ConstRows view() const { return {device.data(), DType::kF32, rows, width, stride}; }
  [[nodiscard]] std::span<const float> row(int64_t r) const {
    return {values.data() + r * stride, static_cast<size_t>(width)};
  }
};

// Coarse steps make many logits equal.
Logits RandomLogits(Rng& rng, int64_t rows, int64_t width, double step) {
  constexpr int64_t kPad = 3;
  std::vector<float> x(static_cast<size_t>(rows * (width + kPad)), kNaN);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < width; ++i) {
      const double value = 3.0 * rng.NextNormal();
      const double stepped = step > 0.0 ? step * std::round(value / step) : value;
      x[static_cast<size_t>(r * (width + kPad) + i)] =
          rng.NextBelow(20) == 0 ? -kInfinity : static_cast<float>(stepped);
    }
  }
  return {rows, width, kPad, x};
}

std::vector<int32_t> Greedy(const Logits& logits) {
  const DeviceArray<int32_t> ids(static_cast<size_t>(logits.rows));
  ArgMax(logits.view(), ids.data(), nullptr);
  return ids.Host();
}

std::vector<int32_t> Drawn(const Logits& logits,
                           const SampleSettings& settings,
                           const std::vector<double>& uniform) {
  const DeviceArray<double> on_device(uniform);
  const DeviceArray<int32_t> ids(static_cast<size_t>(logits.rows));
  Sample(logits.view(), settings, on_device.data(), ids.data(), nullptr);
  return ids.Host();
}

TEST(SamplingTest, TheLargestLogitWins) {
  Rng rng(3);
  for (const int64_t width : {1, 2, 31, 33, 255, 257, 1000}) {
    const Logits logits = RandomLogits(rng, 4, width, 1.0);
    std::vector<int32_t> want;
    for (int64_t r = 0; r < 4; ++r) want.push_back(kernels::SampleToken(logits.row(r), {}, rng));
    UnderOrders([&] { EXPECT_EQ(Greedy(logits), want) << width; });
    EXPECT_EQ(Drawn(logits, {}, {}), want) << "no temperature";
  }
}

TEST(SamplingTest, TiesAndInfinities) {
  const auto greedy = [](const std::vector<float>& x) {
    return Greedy({1, std::ssize(x), 0, x})[0];
  };
  EXPECT_EQ(greedy({1.0F, 2.0F, 2.0F}), 1);
  EXPECT_EQ(greedy({-0.0F, 0.0F}), 0);
  EXPECT_EQ(greedy({-kInfinity, -kInfinity}), 0);
  EXPECT_EQ(greedy({1.0F, kInfinity, kInfinity}), 1);
  const std::vector<float> infinite = {1.0F, kInfinity, 2.0F, kInfinity};
  EXPECT_EQ(Drawn({1, 4, 0, infinite}, {1.0}, {0.9})[0], 1);
  EXPECT_EQ(Drawn({1, 2, 0, {-kInfinity, -kInfinity}}, {1.0, 1}, {0.9})[0], 0);
}

TEST(SamplingTest, ARowWithANaNIsTold) {
  Rng rng(4);
  for (const int64_t at : {0, 40, 299}) {
    Logits logits = RandomLogits(rng, 2, 300, 0.0);
    logits.values[static_cast<size_t>(logits.stride + at)] = kNaN;
    const Logits broken(2, 300, 3, logits.values);
    EXPECT_NE(Greedy(broken)[0], kNanToken);
    EXPECT_EQ(Greedy(broken)[1], kNanToken);
    for (const int64_t top_k : {0, 5}) {
      const auto ids = Drawn(broken, {1.0, top_k}, {0.5, 0.5});
      EXPECT_NE(ids[0], kNanToken);
      EXPECT_EQ(ids[1], kNanToken);
    }
  }
}

// The twin on the CPU draws its number from the generator whose number the device is given.
TEST(SamplingTest, DrawsWhatTheCpuDraws) {
  Rng rng(5);
  uint64_t seed = 0;
  for (const int64_t width : {1, 7, 300, 1000}) {
    for (const double step : {0.0, 0.5}) {
      for (const double temperature : {0.3, 2.0}) {
        for (const int64_t top_k : {0, 2, 40}) {
          for (const double top_p : {1.0, 0.9, 0.0}) {
            const Logits logits = RandomLogits(rng, 2, width, step);
            std::vector<double> uniform;
            std::vector<int32_t> want;
            for (int64_t r = 0; r < 2; ++r) {
              Rng draws(++seed);
              uniform.push_back(Rng(draws).NextDouble());
              want.push_back(
                  kernels::SampleToken(logits.row(r), {temperature, top_k, top_p}, draws));
            }
            ASSERT_EQ(Drawn(logits, {temperature, top_k, top_p}, uniform), want)
                << width << " " << step << " " << temperature << " " << top_k << " " << top_p;
          }
        }
      }
    }
  }
}

// The ends of the unit interval, where rounding may leave a rest.
TEST(SamplingTest, TheLastTokenWithMassEndsTheLine) {
  std::vector<float> x(700, -2000.0F);
  x[3] = 0.0F;
  x[600] = 0.0F;
  const double last = 1.0 - 0x1p-53;
  for (const SampleSettings& settings :
       {SampleSettings{1.0}, SampleSettings{1.0, 650}, SampleSettings{1.0, 0, 0.999}}) {
    EXPECT_EQ(Drawn({1, 700, 0, x}, settings, {0.0})[0], 3);
    EXPECT_EQ(Drawn({1, 700, 0, x}, settings, {0.49})[0], 3);
    EXPECT_EQ(Drawn({1, 700, 0, x}, settings, {0.51})[0], 600);
    EXPECT_EQ(Drawn({1, 700, 0, x}, settings, {last})[0], 600);
  }
}

TEST(SamplingTest, IsDeterministic) {
  Rng rng(6);
  const Logits logits = RandomLogits(rng, 5, 999, 0.25);
  const std::vector<double> uniform = {0.1, 0.3, 0.5, 0.7, 0.9};
  for (const SampleSettings& settings : {SampleSettings{1.5}, SampleSettings{1.5, 300, 0.8}}) {
    const auto want = Drawn(logits, settings, uniform);
    UnderOrders([&] { EXPECT_EQ(Drawn(logits, settings, uniform), want); });
  }
}

TEST(SamplingTest, SaysWhatDoesNotFit) {
  const DeviceArray<float> x(std::vector<float>{1.0F});
  const DeviceArray<int32_t> ids(1);
  EXPECT_THROW(ArgMax({x.data(), DType::kF32, 1, 0, 0}, ids.data(), nullptr), Error);
  EXPECT_THROW(ArgMax({x.data(), DType::kBF16, 1, 1, 1}, ids.data(), nullptr), Error);
  EXPECT_THROW(Sample({x.data(), DType::kF32, 1, 1, 1}, {1.0}, nullptr, ids.data(), nullptr),
               Error);
  EXPECT_NO_THROW(ArgMax({x.data(), DType::kF32, 0, 1, 1}, ids.data(), nullptr));
}

}  // namespace
}  // namespace kvc::cuda
