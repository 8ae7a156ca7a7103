#include "bench/support/attention_shape.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc::bench {
namespace {

int64_t Sum(const std::vector<int64_t>& rows) {
  return std::accumulate(rows.begin(), rows.end(), int64_t{0});
}

TEST(AttentionShapeOfDevices, ReadsEveryPart) {
  const AttentionShape shape =
      ParseAttentionShape("batch=8,budget=25%,skew=2.5,tiers=1/8+1/4+1,tokens=8k");
  EXPECT_EQ(shape.batch, 8);
  EXPECT_EQ(shape.budget, 0.25);
  EXPECT_EQ(shape.skew, 2.5);
  EXPECT_EQ(shape.tiers, (std::vector<double>{1.0, 0.25, 0.125}));
  EXPECT_FALSE(shape.IsPlain());
  EXPECT_TRUE(ParseAttentionShape("tokens=8k").IsPlain());
}

TEST(AttentionShapeOfDevices, RefusesByName) {
  EXPECT_KVC_ERROR((void)ParseAttentionShape("batch=0"), kUsage, "batch");
  EXPECT_KVC_ERROR((void)ParseAttentionShape("budget=2"), kUsage, "--shape: budget");
  EXPECT_KVC_ERROR((void)ParseAttentionShape("skew=much"), kUsage, "--shape: skew");
  EXPECT_KVC_ERROR((void)ParseAttentionShape("skew=8"), kUsage, "skew");
  EXPECT_KVC_ERROR((void)ParseAttentionShape("skew=0.5"), kUsage, "skew");
  EXPECT_KVC_ERROR((void)ParseAttentionShape("tiers=1/8"), kUsage, "--shape: tiers");
}

TEST(AttentionShapeOfDevices, SkewedHeadsKeepTheBudget) {
  for (const char* skew : {"1", "1.5", "2", "4", "7.5"}) {
    const AttentionShape shape =
        ParseAttentionShape(std::string("tokens=10000,budget=30%,skew=") + skew);
    for (const int64_t sequence : {0, 3, 9}) {
      const std::vector<int64_t> rows = RowsOfHeads(shape, sequence);
      EXPECT_EQ(Sum(rows), 8 * 3000);
      const auto longest = std::max_element(rows.begin(), rows.end());
      EXPECT_NEAR(static_cast<double>(*longest), 3000 * shape.skew, 8.0);
      EXPECT_TRUE(shape.skew == 1.0 || longest - rows.begin() == sequence % 8);
      EXPECT_GE(*std::min_element(rows.begin(), rows.end()), 1);
    }
  }
}

TEST(AttentionShapeOfDevices, TiersShareAHeadsRows) {
  const AttentionShape shape = ParseAttentionShape("tiers=1/8+1/4+1");
  EXPECT_EQ(RowsOfTiers(shape, 11), (std::vector<int64_t>{3, 4, 4}));
  EXPECT_EQ(RowsOfTiers(shape, 1), (std::vector<int64_t>{0, 0, 1}));
}

}  // namespace
}  // namespace kvc::bench
