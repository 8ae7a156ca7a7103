// Compression of a shape on the device, or on the emulator.

#include "bench/device/device_compression.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::bench {
namespace {

AttentionShape Shape(const std::string& more) {
  return ParseAttentionShape("heads=4,kv=2,width=32,tokens=120" + more);
}

TEST(DeviceCompressionBench, GathersTheRowsAsTheyAre) {
  LaunchTimer timer(2);
  for (const char* format : {"f32", "f16", "bf16", "int8"}) {
    DeviceCompression compression(Shape(std::string(",batch=2,budget=25%,dtype=") + format), timer);
    EXPECT_FALSE(compression.projects());
    EXPECT_GT(compression.MeasureLaunch(2).best, 0.0);
    EXPECT_EQ(compression.LargestError(1000), 0.0) << format;
    EXPECT_EQ(compression.kept_bytes() * 4, compression.full_bytes());
    EXPECT_EQ(compression.read_bytes(), compression.kept_bytes());
  }
}

TEST(DeviceCompressionBench, ProjectsIntoNarrowTiers) {
  LaunchTimer timer(2);
  struct Case {
    const char* format;
    double bound;  // of a rounding to the format
  };
  for (const auto& [format, bound] :
       {Case{"f32", 2e-6}, Case{"f16", 1e-3}, Case{"bf16", 8e-3}, Case{"int8", 8e-3}}) {
    DeviceCompression compression(
        Shape(std::string(",budget=50%,skew=1.5,tiers=1/4+1,dtype=") + format), timer);
    EXPECT_TRUE(compression.projects());
    EXPECT_GT(compression.MeasureWithLists(2).best, 0.0);
    EXPECT_LE(compression.LargestError(1000), bound) << format;
  }
}

TEST(DeviceCompressionBench, CountsTheBytesOfTiers) {
  LaunchTimer timer(2);
  const DeviceCompression compression(Shape(",budget=50%,tiers=1/4+1,dtype=bf16"), timer);
  EXPECT_EQ(compression.full_bytes(), 2 * 120 * 2 * (32 + 32));
  EXPECT_EQ(compression.read_bytes(), 2 * 60 * 2 * (32 + 32));
  EXPECT_EQ(compression.kept_bytes(), 2 * 30 * 2 * (32 + 32 + 8 + 8));
}

TEST(DeviceCompressionBench, RefusesMoreThanThereIs) {
  LaunchTimer timer(2);
  EXPECT_KVC_ERROR((void)DeviceCompression(Shape(",skew=1.5"), timer), kUsage, "skew");
  EXPECT_KVC_ERROR((void)DeviceCompression(Shape(",latent=16"), timer), kUsage, "latent");
}

}  // namespace
}  // namespace kvc::bench
