// Attention of a shape on the device, or on the emulator.

#include "bench/device/device_attention.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::bench {
namespace {

constexpr const char* kSmall = "heads=8,kv=4,width=64,tokens=200";

AttentionShape Shape(const std::string& more) {
  return ParseAttentionShape(std::string(kSmall) + more);
}

// Queries and weights are rounded to 16-bit rows' type: half a step of 2^-8 or 2^-11 of a score of
// a few units each. With int8 rows they are sums of two bf16 numbers: 2^-17; so are latents, their
// matrix and the keys that become of them. An error of the plan or of the filling would be of the
// outputs' own size.
TEST(DeviceAttentionBench, AgreesWithDoublePrecision) {
  LaunchTimer timer(2);
  struct Case {
    const char* shape;
    double bound;
  };
  for (const auto& [shape, bound] :
       {Case{",dtype=f32", 2e-6}, Case{",dtype=int8", 3e-5}, Case{",dtype=f16", 2e-3},
        Case{",dtype=bf16", 2e-2}, Case{",dtype=f32,key=16", 2e-6},
        Case{",dtype=f32,batch=3,budget=50%,skew=2", 2e-6},
        Case{",dtype=f32,tiers=1/8+1/4+1", 2e-6}, Case{",dtype=f32,latent=48", 6e-5},
        Case{",dtype=bf16,latent=80,batch=2,tiers=1/4+1", 6e-5},
        Case{",dtype=int8,batch=2,budget=20%,skew=3,tiers=1/3+1", 3e-5},
        Case{",dtype=x4,batch=2,budget=50%,tiers=1/4+1", 3e-5}, Case{",dtype=x2", 3e-5},
        Case{",dtype=avg1.5,skew=2", 3e-5}, Case{",dtype=avg6,tiers=1/4+1", 3e-5}}) {
    DeviceAttention attention(Shape(shape), timer);
    EXPECT_GT(attention.Measure(2).best, 0.0);
    EXPECT_LE(attention.LargestError(100), bound) << shape;
  }
}

TEST(DeviceAttentionBench, CountsTheBytesOfRows) {
  LaunchTimer timer(2);
  const auto bytes = [&](const char* more) { return DeviceAttention(Shape(more), timer).bytes(); };
  EXPECT_EQ(bytes(",dtype=bf16"), 4 * 200 * 2 * (64 + 64));
  EXPECT_EQ(bytes(",dtype=bf16,key=16,batch=3"), 3 * 4 * 200 * 2 * (16 + 64));
  EXPECT_EQ(bytes(",dtype=bf16,budget=50%,skew=2"), 4 * 100 * 2 * (64 + 64));
  EXPECT_EQ(bytes(",dtype=f32,tiers=1/4+1"), 4 * 100 * 4 * (64 + 64 + 16 + 16));
  EXPECT_EQ(bytes(",dtype=x4"), 4 * 200 * (64 + 64) / 2);
  EXPECT_EQ(bytes(",dtype=avg3"), Shape(",dtype=avg3").LayerBytes());
  EXPECT_EQ(bytes(",dtype=bf16,latent=80,batch=2"), 2 * 200 * 2 * (80 + 4 * 64));
}

TEST(DeviceAttentionBench, GivesItsMemoryBack) {
  const size_t before = cuda::UsedBytes();
  {
    LaunchTimer timer(2);
    const DeviceAttention attention(Shape(""), timer);
    EXPECT_GE(cuda::UsedBytes(), before + static_cast<size_t>(attention.bytes()));
  }
  EXPECT_EQ(cuda::UsedBytes(), before);
}

TEST(DeviceAttentionBench, RefusesWhatItHasNot) {
  LaunchTimer timer(2);
  EXPECT_KVC_ERROR((void)DeviceAttention(Shape(",latent=16,skew=2"), timer), kUsage, "latent");
  EXPECT_KVC_ERROR((void)DeviceAttention(ParseAttentionShape("width=264,tokens=8"), timer),
                   kUnsupported, "width");
}

}  // namespace
}  // namespace kvc::bench
