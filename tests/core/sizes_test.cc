#include "core/base/sizes.h"

#include <string>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc {
namespace {

TEST(Sizes, Lengths) {
  EXPECT_EQ(ParseLength("4096", "--context"), 4096);
  EXPECT_EQ(ParseLength("4k", "--context"), 4096);
  EXPECT_EQ(ParseLength("128K", "--context"), 131072);
  EXPECT_EQ(ParseLength("1M", "--context"), 1048576);
  EXPECT_EQ(ParseLength("0.5k", "--context"), 512);
  for (const char* text : {"", "k", "0", "-1", "1.5", "4kk", "4 k", "nan", "inf", "1e3", "0x10",
                           "99999999999999999999", "4G1", "1e400"}) {
    EXPECT_KVC_ERROR((void)ParseLength(text, "--context"), kUsage, "--context: expected a length");
  }
}

TEST(Sizes, Bytes) {
  EXPECT_EQ(ParseBytes("1GiB", "--budget"), 1073741824);
  EXPECT_EQ(ParseBytes("1.5KiB", "--budget"), 1536);
  EXPECT_EQ(ParseBytes("100MB", "--budget"), 100'000'000);
  EXPECT_EQ(ParseBytes("4096", "--budget"), 4096);
  EXPECT_EQ(ParseBytes("7B", "--budget"), 7);
  for (const char* text : {"", "GiB", "1 GiB", "1gib", "-1KiB", "0", "0.5B", "1PiB"}) {
    EXPECT_KVC_ERROR((void)ParseBytes(text, "--budget"), kUsage, "--budget: expected a size");
  }
}

TEST(Sizes, Shares) {
  EXPECT_EQ(ParseShare("25%", "--rank"), 0.25);
  EXPECT_EQ(ParseShare("0.25", "--rank"), 0.25);
  EXPECT_EQ(ParseShare("6.25%", "--rank"), 0.0625);
  EXPECT_EQ(ParseShare("1", "--rank"), 1.0);
  EXPECT_EQ(ParseShare("100%", "--rank"), 1.0);
  for (const char* text :
       {"", "%", "0", "0%", "25", "101%", "1.01", "-5%", "nan", "inf%", "25%%"}) {
    EXPECT_KVC_ERROR((void)ParseShare(text, "--rank"), kUsage, "--rank: expected a share");
  }
}

TEST(Sizes, BudgetsReadBack) {
  const Budget share = ParseBudget("12.5%", "--budget");
  EXPECT_EQ(share.unit, Budget::Unit::kShare);
  EXPECT_EQ(share.share, 0.125);
  const Budget tokens = ParseBudget("512tok", "--budget");
  EXPECT_EQ(tokens.unit, Budget::Unit::kTokens);
  EXPECT_EQ(tokens.tokens, 512);
  const Budget bytes = ParseBudget("1GiB@128k", "--budget");
  EXPECT_EQ(bytes.unit, Budget::Unit::kBytes);
  EXPECT_EQ(bytes.bytes, 1073741824);
  EXPECT_EQ(bytes.at_length, 131072);
  for (const char* text : {"25%", "0.07", "0.333333333333", "1", "512tok", "1GiB@128k", "1000@7",
                           "1536@1", "100MB@4k"}) {
    const Budget budget = ParseBudget(text, "--budget");
    const Budget again = ParseBudget(ToString(budget), "--budget");
    EXPECT_EQ(again.unit, budget.unit) << text;
    EXPECT_EQ(again.share, budget.share) << text;
    EXPECT_EQ(again.tokens, budget.tokens) << text;
    EXPECT_EQ(again.bytes, budget.bytes) << text;
    EXPECT_EQ(again.at_length, budget.at_length) << text;
  }
  EXPECT_EQ(ToString(share), "12.5%");
  EXPECT_EQ(ToString(bytes), "1GiB@131072");
  for (const char* text : {"", "25", "tok", "512 tok", "1GiB", "1GiB@", "@4k", "0tok", "0%"}) {
    EXPECT_KVC_ERROR((void)ParseBudget(text, "--budget"), kUsage, "--budget");
  }
}

TEST(Sizes, Ranks) {
  EXPECT_EQ(ParseRank("48", "--rank").dims, 48);
  EXPECT_FALSE(ParseRank("1", "--rank").is_share);
  EXPECT_EQ(ParseRank("25%", "--rank").share, 0.25);
  EXPECT_TRUE(ParseRank("1.0", "--rank").is_share);
  for (const char* text : {"", "0", "-3", "1.5", "rank", "48x"}) {
    EXPECT_KVC_ERROR((void)ParseRank(text, "--rank"), kUsage, "--rank");
  }
}

TEST(Sizes, FormatsBytes) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(320), "320 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(1610612736), "1.5 GiB");
  EXPECT_EQ(FormatBytes(1LL << 60), "1048576.0 TiB");
}

}  // namespace
}  // namespace kvc
