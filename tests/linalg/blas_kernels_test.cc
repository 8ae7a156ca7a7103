#include "linalg/blas_kernels.h"

#include <gtest/gtest.h>

namespace kvc::linalg {
namespace {

constexpr ProcessorFeatures kOld = {};
constexpr ProcessorFeatures kAvx2 = {.avx2 = true};
constexpr ProcessorFeatures kAmdAvx2 = {.amd = true, .avx2 = true};
constexpr ProcessorFeatures kAvx512 = {.avx2 = true, .avx512 = true};
constexpr ProcessorFeatures kAmdAvx512 = {.amd = true, .avx2 = true, .avx512 = true};

TEST(FittingCoreType, IsWhatAnUnknownProcessorCanDo) {
  EXPECT_EQ(FittingCoreType(kAvx512, "Prescott", nullptr), "SkylakeX");  // Emerald Rapids
  EXPECT_EQ(FittingCoreType(kAmdAvx512, "Prescott", nullptr), "SkylakeX");
  EXPECT_EQ(FittingCoreType(kAvx2, "Prescott", nullptr), "Haswell");
  EXPECT_EQ(FittingCoreType(kAmdAvx2, "Prescott", nullptr), "Zen");
  EXPECT_EQ(FittingCoreType(kOld, "Prescott", nullptr), std::nullopt);
}

TEST(FittingCoreType, LeavesKnownProcessorsAlone) {
  for (const char* kernels : {"Haswell", "Zen", "SkylakeX", "Cooperlake", "SapphireRapids",
                              "Sandybridge", "Excavator", "armv8", ""}) {
    EXPECT_EQ(FittingCoreType(kAvx512, kernels, nullptr), std::nullopt) << kernels;
  }
}

TEST(FittingCoreType, LeavesTheUsersChoiceAlone) {
  for (const char* choice : {"Prescott", "Haswell", "SkylakeX", "nonsense"}) {
    EXPECT_EQ(FittingCoreType(kAvx512, "Prescott", choice), std::nullopt) << choice;
  }
  EXPECT_EQ(FittingCoreType(kAvx512, "Prescott", ""), "SkylakeX");
}

TEST(BlasKernels, HaveAName) { EXPECT_FALSE(BlasKernels().empty()); }

}  // namespace
}  // namespace kvc::linalg
