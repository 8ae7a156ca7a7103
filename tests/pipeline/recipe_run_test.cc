// Runs of recipes whose commands are shell scripts: what is kept, made, refused.

#include "pipeline/recipe/recipe_run.h"

#include <filesystem>
#include <string>

#include <gtest/gtest.h>

#include "core/io/directory_lock.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::recipe {
namespace {

namespace fs = std::filesystem;

// Stands for kvc-factorize: writes -o DIR as the commands do, unless it holds files and there is no
// --force.
constexpr const char* kScript = R"sh(#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in -o) out=$2; shift ;; --force) force=1 ;; esac
  shift
done
[ -n "$force" ] || [ -z "$(ls -A "$out" 2> /dev/null)" ] || exit 2
rm -rf "$out" && mkdir "$out" && echo made > "$out/weights" && echo '{"command": "kvc-factorize"}'
)sh";

class RecipeRunTest : public ::testing::Test {
 protected:
  RecipeRunTest() {
    fs::create_directory(dir_ / "bin");
    WriteScript(kScript);
    WriteFile(dir_ / "m", "weights");
    WriteFile(dir_ / "r.json", R"({"recipe": 1, "inputs": {"m": "m"}, "stages": [
        {"name": "thin", "command": "kvc-factorize", "arguments": ["$m"]}]})");
    options_.programs = dir_ / "bin";
    options_.output = dir_ / "out";
  }
  void WriteScript(const std::string& text) {
    WriteFile(dir_ / "bin/kvc-factorize", text);
    fs::permissions(dir_ / "bin/kvc-factorize", fs::perms::owner_all);
  }
  std::string Run() {
    NoProgress silent;
    const Recipe recipe = ReadRecipe(dir_ / "r.json", sets_);
    return RunRecipe(recipe, options_, silent).stages[0].state;
  }
  testing::TempDir dir_;
  RecipeRunOptions options_;
  std::map<std::string, std::string> sets_;
};

TEST_F(RecipeRunTest, MakesKeepsAndMakesAgain) {
  EXPECT_EQ(Run(), "ran");
  EXPECT_EQ(Run(), "kept");
  WriteFile(dir_ / "m", "other weights");
  EXPECT_EQ(Run(), "ran");
  WriteFile(dir_ / "out/thin/weights", "changed");  // its own file: made again
  EXPECT_EQ(Run(), "ran");
  fs::remove_all(dir_ / "out/thin");
  EXPECT_EQ(Run(), "ran");
  EXPECT_EQ(ReadFile(dir_ / "out/thin/weights"), "made\n");
}

// The launcher of this test notes its words and starts the rest.
TEST_F(RecipeRunTest, StartsStagesThatTakeRanksThroughTheLauncher) {
  const fs::path launcher = dir_ / "launch";
  WriteFile(launcher, "#!/bin/sh\necho \"$1 $2\" >> \"$0.log\"\nshift 2\nexec \"$@\"\n");
  fs::permissions(launcher, fs::perms::owner_all);
  Json recipe = ReadJsonFile(dir_ / "r.json");
  recipe["launcher"] = {launcher.string(), "-n", "8"};
  recipe["stages"].push_back({{"name", "speed"}, {"command", "kvc-bench"}});
  WriteJsonFile(dir_ / "r.json", recipe);
  WriteFile(dir_ / "bin/kvc-bench", "#!/bin/sh\necho '{}'\n");
  fs::permissions(dir_ / "bin/kvc-bench", fs::perms::owner_all);
  EXPECT_EQ(Run(), "ran");
  EXPECT_EQ(ReadFile(launcher.string() + ".log"), "-n 8\n");  // of two stages
  const std::string record = ReadFile(dir_ / "out/stages/thin.json");
  EXPECT_EQ(Run(), "kept");

  // Another launcher, or none, makes the same: nothing runs again, and a record has the same bytes.
  options_.launcher = std::vector<std::string>{};
  EXPECT_EQ(Run(), "kept");
  options_.force = true;
  EXPECT_EQ(Run(), "ran");
  EXPECT_EQ(ReadFile(launcher.string() + ".log"), "-n 8\n");
  EXPECT_EQ(ReadFile(dir_ / "out/stages/thin.json"), record);
  options_.launcher = {"no-such-launcher", "-n", "2"};
  EXPECT_KVC_ERROR((void)Run(), kUsage, "launcher: expected a program, got no-such-launcher");
}

TEST_F(RecipeRunTest, RefusesFoldersThatItDidNotMake) {
  fs::create_directories(dir_ / "out/thin");
  EXPECT_EQ(Run(), "ran");  // an empty one is nobody's
  fs::remove_all(dir_ / "out");
  fs::create_directories(dir_ / "out/thin/sub");
  WriteFile(dir_ / "out/thin/sub/precious", "mine");
  EXPECT_KVC_ERROR((void)Run(), kUsage, "out/thin");
  EXPECT_KVC_ERROR((void)Run(), kUsage, "sub/precious");
  options_.dry_run = true;
  EXPECT_KVC_ERROR((void)Run(), kUsage, "sub/precious");
  options_.dry_run = false;
  EXPECT_EQ(ReadFile(dir_ / "out/thin/sub/precious"), "mine");
  options_.force = true;
  EXPECT_EQ(Run(), "ran");
  EXPECT_FALSE(fs::exists(dir_ / "out/thin/sub"));
}

TEST_F(RecipeRunTest, RefusesFilesThatCameIntoItsFolder) {
  EXPECT_EQ(Run(), "ran");
  WriteFile(dir_ / "out/thin/notes", "mine");
  EXPECT_KVC_ERROR((void)Run(), kUsage, "got notes");
  EXPECT_EQ(ReadFile(dir_ / "out/thin/notes"), "mine");
}

TEST_F(RecipeRunTest, RefusesResultsThatItDidNotMake) {
  fs::create_directories(dir_ / "out/results");
  WriteFile(dir_ / "out/results/thin.json", "mine");
  EXPECT_KVC_ERROR((void)Run(), kUsage, "results/thin.json");
  EXPECT_EQ(ReadFile(dir_ / "out/results/thin.json"), "mine");
  fs::create_directories(dir_ / "out/stages");
  WriteFile(dir_ / "out/stages/thin.json", R"({"scenes": 3})");
  EXPECT_KVC_ERROR((void)Run(), kUsage, "stages/thin.json");
}

TEST_F(RecipeRunTest, RefusesAFileInItsPlace) {
  WriteFile(dir_ / "out", "mine");
  EXPECT_KVC_ERROR((void)Run(), kIo, "out");
  EXPECT_EQ(ReadFile(dir_ / "out"), "mine");
}

TEST_F(RecipeRunTest, NeverWritesOverAnInput) {
  fs::create_directories(dir_ / "out/thin");
  WriteFile(dir_ / "out/thin/weights", "mine");
  for (const bool force : {false, true}) {
    options_.force = force;
    for (const char* input : {"out/thin", "out/thin/weights", "out"}) {
      sets_ = {{"m", (dir_ / input).string()}};
      EXPECT_KVC_ERROR((void)Run(), kUsage, "apart from the inputs");
    }
  }
  EXPECT_EQ(ReadFile(dir_ / "out/thin/weights"), "mine");
}

TEST_F(RecipeRunTest, NamesAMissingInputAndLeavesNothing) {
  fs::remove(dir_ / "m");
  EXPECT_KVC_ERROR((void)Run(), kIo, "input $m");
  EXPECT_FALSE(fs::exists(dir_ / "out"));
}

TEST_F(RecipeRunTest, IsOfOneAtATime) {
  fs::create_directory(dir_ / "out");
  {
    const DirectoryLock other(dir_ / "out");
    EXPECT_KVC_ERROR((void)Run(), kUsage, "wait for that run");
  }
  EXPECT_TRUE(fs::is_empty(dir_ / "out"));
  EXPECT_EQ(Run(), "ran");
}

TEST_F(RecipeRunTest, GoesOnAfterAFailedStage) {
  EXPECT_EQ(Run(), "ran");
  WriteFile(dir_ / "m", "other weights");
  WriteScript("#!/bin/sh\nexit 4\n");
  EXPECT_KVC_ERROR((void)Run(), kInfeasible,
                   "stage thin: expected kvc-factorize to succeed, got exit code 4");
  WriteFile(dir_ / "out/thin/notes", "mine");  // not covered by the failed stage's claim
  WriteScript(kScript);
  EXPECT_KVC_ERROR((void)Run(), kUsage, "got notes");
  fs::remove(dir_ / "out/thin/notes");
  EXPECT_EQ(Run(), "ran");
}

// A run that was killed while a stage ran left the stage's claim, and perhaps what it made.
TEST_F(RecipeRunTest, GoesOnAfterARunThatWasKilled) {
  fs::create_directories(dir_ / "out/stages");
  fs::create_directories(dir_ / "out/thin");
  WriteFile(dir_ / "out/thin/weights", "made by a stage that ended after its run");
  WriteJsonFile(dir_ / "out/stages/thin.json", {{"kvc", "0.1.0"}, {"command", "kvc-factorize"}});
  EXPECT_EQ(Run(), "ran");
  EXPECT_EQ(Run(), "kept");
}

// A record that a full disk cut short, that a power failure left as zeros, or whose fields are of
// another kind says nothing: the stage runs again. What never was a record is another's file.
TEST_F(RecipeRunTest, RunsAStageWithABrokenRecordAgain) {
  EXPECT_EQ(Run(), "ran");
  const fs::path path = dir_ / "out/stages/thin.json";
  const std::string record = ReadFile(path);
  for (const std::string& broken :
       {record.substr(0, record.size() / 2), std::string(), std::string(100, '\0'),
        std::string(R"({"kvc": "0.1.0", "key": 3, "result_sha256": [], "files": ["weights"]})")}) {
    WriteFile(path, broken);
    EXPECT_EQ(Run(), "ran");
    EXPECT_EQ(Run(), "kept");
  }
  WriteFile(path, "my notes");
  EXPECT_THROW((void)Run(), Error);
  EXPECT_EQ(ReadFile(path), "my notes");
}

}  // namespace
}  // namespace kvc::recipe
