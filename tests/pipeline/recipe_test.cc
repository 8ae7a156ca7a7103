#include "pipeline/recipe/recipe.h"

#include <fstream>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::recipe {
namespace {

class RecipeTest : public ::testing::Test {
 protected:
  Recipe Read(const std::string& stages, const std::map<std::string, std::string>& sets = {}) {
    std::ofstream(directory_ / "recipe.json")
        << R"({"recipe": 1, "inputs": {"model": "../m", "text": "t.txt"}, "stages": [)" << stages
        << "]}";
    return ReadRecipe(directory_ / "recipe.json", sets);
  }
  testing::TempDir directory_;
};

constexpr const char* kThin =
    R"({"name": "thin", "command": "kvc-factorize", "arguments": ["$model"], "options": {"rank": "25%", "spread": true, "control": false, "calib": ["$text", "$text"], "window": 512}})";

TEST_F(RecipeTest, KnowsTheStagesThatTakeRanks) {
  const auto takes = [&](const std::string& command, const std::string& options = "{}") {
    return Read(R"({"name": "a", "command": ")" + command + R"(", "options": )" + options + "}")
        .stages[0]
        .takes_ranks();
  };
  for (const char* command : {"kvc-factorize", "kvc-profile", "kvc-train", "kvc-eval compare"}) {
    EXPECT_TRUE(takes(command)) << command;
  }
  EXPECT_TRUE(takes("kvc-export", R"({"method": "auto"})"));
  EXPECT_FALSE(takes("kvc-export", R"({"method": "lukv"})"));
  for (const char* command : {"kvc-export", "kvc-run", "kvc-bench"}) {
    EXPECT_FALSE(takes(command)) << command;
  }
}

TEST_F(RecipeTest, ReadsInputsStagesAndOptions) {
  const Recipe recipe = Read(
      std::string(kThin) +
      R"(, {"name": "out", "command": "kvc-eval kld", "arguments": ["@thin"], "options": {"against": "@thin"}})");
  EXPECT_EQ(recipe.inputs.at("text"), directory_.path() / "t.txt");
  EXPECT_EQ(recipe.inputs.at("model"), directory_.path().parent_path() / "m");
  ASSERT_EQ(recipe.stages.size(), 2U);
  const Stage& thin = recipe.stages[0];
  EXPECT_TRUE(thin.writes_folder());
  EXPECT_TRUE(thin.needs().empty());
  ASSERT_EQ(thin.options.size(), 4U);  // false is left out
  EXPECT_EQ(thin.options[0].second, std::vector<std::string>{"25%"});
  EXPECT_TRUE(thin.options[1].second.empty());
  EXPECT_EQ(thin.options[2].second, (std::vector<std::string>{"$text", "$text"}));
  EXPECT_EQ(thin.options[3].second, std::vector<std::string>{"512"});
  EXPECT_FALSE(recipe.stages[1].writes_folder());
  EXPECT_EQ(recipe.stages[1].needs(), std::vector<std::string>{"thin"});
}

TEST_F(RecipeTest, ReplacesInputs) {
  EXPECT_EQ(Read(kThin, {{"text", "/other.txt"}}).inputs.at("text"), "/other.txt");
  EXPECT_KVC_ERROR((void)Read(kThin, {{"words", "x"}}), kUsage, "--set words");
}

TEST_F(RecipeTest, RefusesByName) {
  const std::string thin = kThin;
  EXPECT_KVC_ERROR((void)Read(""), kBadInput, "at least one");
  EXPECT_KVC_ERROR((void)Read(thin + "," + thin), kBadInput, "each name once");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "rm"})"), kBadInput, "\"rm\"");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "../a", "command": "kvc-run"})"), kBadInput,
                   "name of small");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "results", "command": "kvc-run"})"), kBadInput,
                   "results");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "kvc-run", "option": {}})"), kBadInput,
                   "option");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "kvc-run", "options": {"json": true}})"),
                   kBadInput, "sets itself, got json");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "kvc-run", "arguments": ["$book"]})"),
                   kBadInput, "$book");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "kvc-run", "arguments": ["@a"]})"),
                   kBadInput, "@a");
  EXPECT_KVC_ERROR((void)Read(R"({"name": "a", "command": "kvc-run", "options": {"n": {}}})"),
                   kBadInput, "n:");
}

}  // namespace
}  // namespace kvc::recipe
