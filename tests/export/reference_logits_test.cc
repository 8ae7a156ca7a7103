#include "export/bundle/reference_logits.h"

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace kvc::bundle {
namespace {

TEST(VerificationTolerances, FollowWhatTheSourceItselfRounds) {
  bundle::ReferenceLogits reference{
      {1, 2, 3}, {0.0F, 30.0F, -40.0F, 1.0F, 2.0F, 3.0F}, {0.0F, 5e-5F, 5e-4F}};
  CacheGeometry cache;
  EXPECT_EQ(bundle::VerificationTolerances(DType::kF32, cache, reference),
            (std::vector<double>{1e-3, 1e-3, 16.0 * double{5e-4F}}));
  for (const double tolerance : bundle::VerificationTolerances(DType::kF16, cache, reference)) {
    EXPECT_DOUBLE_EQ(tolerance, 4e-3 * 40.0);
  }
  // The coarsest of weights, keys and values decides.
  cache.value_format = kRowsBF16;
  for (const double tolerance : bundle::VerificationTolerances(DType::kF16, cache, reference)) {
    EXPECT_DOUBLE_EQ(tolerance, 3e-2 * 40.0);
  }
  cache.key_format = kRowsInt8;
  for (const double tolerance : bundle::VerificationTolerances(DType::kF16, cache, reference)) {
    EXPECT_DOUBLE_EQ(tolerance, 1e-1 * 40.0);
  }
}

TEST(DecidingToken, IsTheLargestErrorUnlessAnotherFails) {
  const std::vector<double> tolerances = {1e-3, 8e-3, 1e-3};
  EXPECT_EQ(bundle::DecidingToken({1e-4, 4e-3, 9e-4}, tolerances), 1U);
  EXPECT_EQ(bundle::DecidingToken({1e-4, 4e-3, 2e-3}, tolerances), 2U);
  EXPECT_EQ(bundle::DecidingToken({1e-4, 9e-3, 3e-3}, tolerances), 2U);
  EXPECT_EQ(bundle::DecidingToken({0.0}, {1e-3}), 0U);
}

TEST(ReferenceFile, KeepsTheRounding) {
  const testing::TempDir dir;
  const bundle::ReferenceLogits written{{7, 3},
                                        {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F, 7.0F, 8.0F, 9.0F,
                                         10.0F, 11.0F, 12.0F, 13.0F, 14.0F, 15.0F, 16.0F},
                                        {1e-5F, 2e-5F}};
  bundle::WriteReference(dir.path(), written);
  const bundle::ReferenceLogits read = bundle::ReadReference(dir.path());
  EXPECT_EQ(read.ids, written.ids);
  EXPECT_EQ(read.logits, written.logits);
  EXPECT_EQ(read.rounding, written.rounding);
}

}  // namespace
}  // namespace kvc::bundle
