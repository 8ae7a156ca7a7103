#include "core/cache/tier_list.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

std::vector<std::pair<double, double>> Shares(std::string_view text) {
  std::vector<std::pair<double, double>> shares;
  for (const Tier& tier : ParseTiers(text, "--tiers")) {
    shares.emplace_back(tier.key_share, tier.value_share);
  }
  return shares;
}

using Pairs = std::vector<std::pair<double, double>>;

TEST(TierList, OneListServesKeysAndValues) {
  EXPECT_EQ(Shares("0,1"), (Pairs{{1, 1}}));
  EXPECT_EQ(Shares("0,1/8,1/4,1"), (Pairs{{1, 1}, {0.25, 0.25}, {0.125, 0.125}}));
  EXPECT_EQ(Shares("1,12.5%,0.25,0,1/4"), (Pairs{{1, 1}, {0.25, 0.25}, {0.125, 0.125}}));
}

TEST(TierList, TwoListsMeetInEveryPair) {
  const Pairs expected = {{1, 1}, {1, 0.5}, {0.25, 1}, {0.25, 0.5}};
  EXPECT_EQ(Shares("key=0,1/4,1;value=0,1/2,1"), expected);
  EXPECT_EQ(Shares("value=0,1/2,1;key=0,1/4,1"), expected);
  EXPECT_EQ(Shares("key=0,1;value=0,1/2,1"), (Pairs{{1, 1}, {1, 0.5}}));
}

TEST(TierList, SharesMaySayTheirBits) {
  const Tier eight = {1.0, 1.0, kRowsX8, kRowsX8};
  const Tier four = {1.0, 1.0, kRowsX4, kRowsX4};
  const Tier two = {1.0, 1.0, kRowsX2, kRowsX2};
  const Tier half = {0.5, 0.5, kRowsX4, kRowsX4};
  // 0 and 1 go without saying.
  const std::vector<Tier> expected = {{1.0, 1.0}, eight, four, two};
  EXPECT_EQ(ParseTiers("1x8,1x4,1x2", "--tiers"), expected);
  EXPECT_EQ(ParseTiers("0,1,1x2,1x4,1x8", "--tiers"), expected);
  EXPECT_EQ(ParseTiers("1/2x4,1x8", "--tiers"), (std::vector<Tier>{{1.0, 1.0}, eight, half}));
  EXPECT_EQ(ParseTiers("50%x4,1/4,1x8", "--tiers"),
            (std::vector<Tier>{{1.0, 1.0}, eight, half, {0.25, 0.25}}));
  const std::vector<Tier> apart = {
      {1.0, 1.0}, {1.0, 1.0, {}, kRowsX2}, {1.0, 1.0, kRowsX8, {}}, {1.0, 1.0, kRowsX8, kRowsX2}};
  EXPECT_EQ(ParseTiers("key=1x8;value=1x2", "--tiers"), apart);
}

TEST(TierList, BitsOnAverageAreSpreadByColumn) {
  const auto mixed = [](int32_t rate) { return Tier{1.0, 1.0, MixedRows(rate), MixedRows(rate)}; };
  const Tier eight = {1.0, 1.0, kRowsX8, kRowsX8};
  const Tier four = {1.0, 1.0, kRowsX4, kRowsX4};
  EXPECT_EQ(ParseTiers("x1.5,x4,x8,1x3", "--tiers"),
            (std::vector<Tier>{{1.0, 1.0}, eight, mixed(16), mixed(12), mixed(6)}));
  // All columns in four bits, and four on average.
  EXPECT_EQ(ParseTiers("1x4,x4", "--tiers"), (std::vector<Tier>{{1.0, 1.0}, mixed(16), four}));
  EXPECT_EQ(RowFormatName(mixed(6).key_format.value()), "avg1.5");
}

TEST(TierList, RefusesWhatIsNoList) {
  for (const char* text : {"1/2x3",   "1x",
                           "1x8,",    "x8.25",
                           "x0",      "x1.3",
                           "xnan",    "x-1",
                           "0x4",     "1x16",
                           "1x8x4",   "1/2 x4",
                           "",        "1",
                           "0",       "0,1/8",
                           "1/8,1",   "0,,1",
                           "0,2,1",   "0,-1/4,1",
                           "0,1/0,1", "0,1/,1",
                           "0,nan,1", "0,x,1",
                           "key=0,1", "key=0,1;key=0,1",
                           "0,1;0,1"}) {
    EXPECT_KVC_ERROR((void)ParseTiers(text, "--tiers"), kUsage, "--tiers: expected shares");
  }
}

}  // namespace
}  // namespace kvc
