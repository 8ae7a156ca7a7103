// All that is wrong with a recipe, with its lines, and the schema by which editors say it.

#include <fstream>
#include <random>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "pipeline/recipe/recipe.h"
#include "tests/pipeline/schema_validator.h"
#include "tests/support/expect_error.h"
#include "tests/support/mutate.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::recipe {
namespace {

namespace fs = std::filesystem;

class RecipeCheck : public ::testing::Test {
 protected:
  std::vector<RecipeProblem> Check(const std::string& text) {
    std::ofstream(directory_ / "recipe.json", std::ios::trunc) << text;
    return CheckRecipe(directory_ / "recipe.json", {}).problems;
  }
  testing::TempDir directory_;
};

TEST_F(RecipeCheck, NamesEveryProblemWithItsLine) {
  const auto problems = Check(R"({
  "recipe": 2,
  "aboot": "text",
  "inputs": {
    "model": 3
  },
  "stages": [
    {"name": "Big",
     "command": "kvc-exprt",
     "options": {
       "force": true,
       "tiers": {}
     }},
    {"name": "a", "command": "kvc-run", "arguments": [
       "$model", "$book",
       "@Big"]},
    {"name": "a", "command": "kvc-run",
     "arguments": "x"},
    7
  ]
})");
  std::vector<std::pair<int64_t, std::string>> expected = {{2, "recipe: expected 1, got 2"},
                                                           {3, "\"aboot\""},
                                                           {5, "inputs: model"},
                                                           {8, "small letters"},
                                                           {9, "\"kvc-exprt\""},
                                                           {11, "force"},
                                                           {12, "tiers: expected"},
                                                           {15, "an input, got $book"},
                                                           {16, "got @Big"},
                                                           {17, "each name once"},
                                                           {18, "expected a list"},
                                                           {19, "got number"}};
  ASSERT_EQ(problems.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(problems[i].line, expected[i].first) << problems[i].text;
    EXPECT_NE(problems[i].text.find(expected[i].second), std::string::npos) << problems[i].text;
  }
  EXPECT_KVC_ERROR((void)ReadRecipe(directory_ / "recipe.json", {}), kBadInput,
                   "recipe.json:2: recipe: expected 1, got 2 (and 11 more");
}

TEST_F(RecipeCheck, NamesTheLineOfASyntaxError) {
  EXPECT_KVC_ERROR((void)Check("{\n  \"recipe\": 1,\n  oops}"), kBadInput, "line 3");
  EXPECT_EQ(Check("[]").size(), 1U);
  EXPECT_EQ(
      Check(R"({"recipe": 1, "inputs": {}, "stages": [{"name": "a", "command": ""}]})").size(), 1U);
  EXPECT_EQ(Check("{}").size(), 3U);  // recipe, inputs, stages
}

Json Schema() { return ReadJsonFile(testing::SourceRoot() / "docs/formats/recipe.schema.json"); }

TEST_F(RecipeCheck, ChecksTheLauncher) {
  const testing::SchemaValidator schema(Schema());
  const auto good = [&](const std::string& launcher) {
    const std::string text = R"({"recipe": 1, "inputs": {}, "launcher": )" + launcher +
                             R"(, "stages": [{"name": "a", "command": "kvc-profile"}]})";
    const bool accepted = Check(text).empty();
    EXPECT_EQ(schema.Accepts(Json::parse(text)), accepted) << launcher;
    return accepted;
  };
  EXPECT_TRUE(good(R"(["srun", "-n", "8"])"));
  for (const char* bad : {"[]", R"("srun -n 8")", R"(["srun", 8])", R"(["srun", ""])", "null"}) {
    EXPECT_FALSE(good(bad)) << bad;
  }
}

// A schema knows no names that other parts of a file define.
bool IsAboutNames(const RecipeProblem& problem) {
  return problem.text.find("expected an input, got $") != std::string::npos ||
         problem.text.find("expected a folder that an earlier") != std::string::npos ||
         problem.text.find("each name once") != std::string::npos;
}

TEST_F(RecipeCheck, AgreesWithTheSchema) {
  const testing::SchemaValidator schema(Schema());
  std::mt19937 random(5);
  int accepted = 0;
  int refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(testing::SourceRoot() / "examples")) {
    if (entry.path().extension() != ".json" ||
        entry.path().string().find("/models/") != std::string::npos)
      continue;
    const std::string text = ReadFile(entry.path());
    if (!Json::parse(text).contains("recipe")) continue;
    EXPECT_TRUE(schema.Accepts(Json::parse(text))) << entry.path();
    EXPECT_TRUE(Check(text).empty()) << entry.path();
    for (int i = 0; i < 200; ++i) {
      Json changed = Json::parse(text);
      testing::MutateValue(changed, random);
      std::vector<RecipeProblem> problems = Check(changed.dump(1));
      std::erase_if(problems, IsAboutNames);
      EXPECT_EQ(schema.Accepts(changed), problems.empty())
          << changed.dump(1) << (problems.empty() ? "" : problems[0].text);
      ++(problems.empty() ? accepted : refused);
    }
  }
  EXPECT_GT(accepted, 100);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace kvc::recipe
