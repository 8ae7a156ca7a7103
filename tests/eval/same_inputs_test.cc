#include "eval/compare/same_inputs.h"

#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"
#include "tests/support/thread_ranks.h"

namespace kvc::eval {
namespace {

using Ids = std::vector<std::vector<int32_t>>;

class CheckSameInputsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"a", "b"}) {
      std::filesystem::create_directory(dir_ / name);
      WriteFile(dir_ / name / "manifest.json", name);
    }
  }

  // Rank 1 of two has its own ids.
  void Check(const Ids& first, const Ids& second) {
    kvc::testing::RunRanks(2, [&](Ranks& ranks) {
      CheckSameInputs(ranks, {dir_ / "a", dir_ / "b"}, ranks.is_first() ? first : second);
    });
  }

  kvc::testing::TempDir dir_;
};

TEST_F(CheckSameInputsTest, TellsTokensAndWhereTheyAreCutApart) {
  const Ids ids = {{1, 2, 3}, {4}};
  EXPECT_NO_THROW(Check(ids, ids));
  EXPECT_KVC_ERROR(Check(ids, {{1, 2, 3}, {5}}), kUsage, "prompts");
  EXPECT_KVC_ERROR(Check(ids, {{1, 2}, {3, 4}}), kUsage, "prompts");
  EXPECT_KVC_ERROR(Check(ids, {{1, 2, 3}}), kUsage, "prompts");
}

TEST_F(CheckSameInputsTest, TellsQuestionsFromContexts) {
  const auto check = [&](const AskedPrompt& second) {
    kvc::testing::RunRanks(2, [&](Ranks& ranks) {
      const std::vector<AskedPrompt> prompts = {ranks.is_first() ? AskedPrompt{{1, 2}, {3}}
                                                                 : second};
      CheckSameInputs(ranks, dir_ / "a", prompts);
    });
  };
  EXPECT_NO_THROW(check({{1, 2}, {3}}));
  EXPECT_KVC_ERROR(check({{1}, {2, 3}}), kUsage, "prompts");
}

TEST_F(CheckSameInputsTest, NamesTheBundleThatARankHasNot) {
  EXPECT_KVC_ERROR(kvc::testing::RunRanks(
                       2,
                       [&](Ranks& ranks) {
                         CheckSameInputs(ranks, {dir_ / (ranks.is_first() ? "a" : "b")}, Ids{{1}});
                       }),
                   kUsage, (dir_ / "a").string());
}

// Nobody to agree with: nothing is read.
TEST_F(CheckSameInputsTest, OneRankReadsNothing) {
  EXPECT_NO_THROW(CheckSameInputs(OneRank(), {dir_ / "absent"}, Ids{{1}}));
}

}  // namespace
}  // namespace kvc::eval
