#include "core/io/output_directory.h"

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/directory_lock.h"
#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

size_t NumEntries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), {}));
}

TEST(OutputDirectory, AppearsWholeByCommit) {
  const testing::TempDir dir;
  {
    OutputDirectory output(dir / "out/", {}, /*force=*/false);
    WriteFile(output.path() / "f", "x");
    EXPECT_FALSE(fs::exists(dir / "out"));
    EXPECT_EQ(output.path().parent_path(), fs::canonical(dir.path()));  // rename stays on one disk
    output.Commit();
  }
  EXPECT_EQ(ReadFile(dir / "out/f"), "x");
  EXPECT_EQ(NumEntries(dir.path()), 1U);
}

TEST(OutputDirectory, LeavesNothingWithoutCommit) {
  const testing::TempDir dir;
  {
    OutputDirectory output(dir / "a/b/out", {}, /*force=*/false);
    WriteFile(output.path() / "f", "x");
  }
  EXPECT_EQ(NumEntries(dir.path()), 0U);  // the parents that it made are gone, too
}

// What a killed run left of this output goes; what a living run writes, other outputs', what was
// moved away to be replaced, and files stay.
TEST(OutputDirectory, RemovesWhatKilledRunsLeft) {
  const testing::TempDir dir;
  for (const char* name : {".out.99-0.tmp", ".out.98-0.tmp", ".other.99-0.tmp", ".out.99-1.old"}) {
    fs::create_directory(dir / name);
    WriteFile(dir / name / "f", "x");
  }
  WriteFile(dir / ".out.97-0.tmp", "x");
  const DirectoryLock living(dir / ".out.98-0.tmp");
  OutputDirectory output(dir / "out", {}, /*force=*/false);
  EXPECT_FALSE(fs::exists(dir / ".out.99-0.tmp"));
  for (const char* name : {".out.98-0.tmp/f", ".other.99-0.tmp/f", ".out.99-1.old/f"}) {
    EXPECT_TRUE(fs::exists(dir / name)) << name;
  }
  EXPECT_TRUE(fs::exists(dir / ".out.97-0.tmp"));
  // And a second run leaves this one alone.
  OutputDirectory second(dir / "out", {}, /*force=*/false);
  EXPECT_TRUE(fs::exists(output.path()));
}

TEST(OutputDirectory, RefusesWhatIsThere) {
  const testing::TempDir dir;
  WriteFile(dir / "file", "x");
  fs::create_directory(dir / "full");
  WriteFile(dir / "full/old", "x");
  fs::create_directory(dir / "empty");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "file", {}, true), kUsage, "got a file");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "full", {}, false), kUsage, "--force");
  EXPECT_KVC_ERROR(OutputDirectory("/", {}, true), kUsage, "working directory");
  EXPECT_KVC_ERROR(OutputDirectory(fs::current_path(), {}, true), kUsage, "working directory");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "file/out", {}, false), kIo, "out");
  OutputDirectory output(dir / "empty", {}, false);
  output.Commit();
  EXPECT_TRUE(fs::is_directory(dir / "empty"));
}

TEST(OutputDirectory, ForceReplacesOnlyAtCommit) {
  const testing::TempDir dir;
  fs::create_directory(dir / "out");
  WriteFile(dir / "out/old", "x");
  { OutputDirectory output(dir / "out", {}, /*force=*/true); }
  EXPECT_TRUE(fs::exists(dir / "out/old"));
  {
    OutputDirectory output(dir / "out", {}, /*force=*/true);
    WriteFile(output.path() / "new", "x");
    output.Commit();
    EXPECT_KVC_ERROR(output.Commit(), kInternal, "second");
  }
  EXPECT_FALSE(fs::exists(dir / "out/old"));
  EXPECT_TRUE(fs::exists(dir / "out/new"));
  EXPECT_EQ(NumEntries(dir.path()), 1U);
}

TEST(OutputDirectory, ResumableKeepsItsWork) {
  const testing::TempDir dir;
  {
    OutputDirectory output(dir / "out", {}, false, /*resumable=*/true);
    EXPECT_EQ(output.path().filename(), "out.partial");
    WriteFile(output.path() / "step1", "x");
    EXPECT_KVC_ERROR(OutputDirectory(dir / "out", {}, false, true), kUsage, "locked");
  }
  {
    OutputDirectory output(dir / "out", {}, false, /*resumable=*/true);
    EXPECT_EQ(ReadFile(output.path() / "step1"), "x");
    output.Commit();
  }
  EXPECT_EQ(ReadFile(dir / "out/step1"), "x");
  EXPECT_EQ(NumEntries(dir.path()), 1U);
}

// ---- outputs apart from inputs

class OutputApart : public ::testing::Test {
 protected:
  OutputApart() {
    fs::create_directories(dir_ / "models/a/sub");
    WriteFile(dir_ / "models/a/weights", "x");
    WriteFile(dir_ / "text.txt", "x");
    fs::create_directory_symlink("models", dir_ / "link");
  }
  // The message of the refusal of `output` beside the input models/a, as it is named in `input`.
  void ExpectRefused(const fs::path& output, const fs::path& input, const char* relation) {
    EXPECT_KVC_ERROR(CheckOutputApart(output, {input}), kUsage, relation);
    EXPECT_KVC_ERROR(CheckOutputApart(output, {input}), kUsage, output.string());
    EXPECT_KVC_ERROR(CheckOutputApart(output, {input}), kUsage, input.string());
  }
  testing::TempDir dir_;
};

TEST_F(OutputApart, RefusesWhatIsHoldsOrLiesInAnInput) {
  const fs::path input = dir_ / "models/a";
  ExpectRefused(dir_ / "models/a", input, "one that is the input");
  ExpectRefused(dir_ / "models/a/", input, "one that is the input");
  ExpectRefused(dir_ / "link/a", input, "one that is the input");
  ExpectRefused(dir_ / "models/b/../a", input, "one that is the input");
  ExpectRefused(dir_ / "link/../models/a/.", input, "one that is the input");
  ExpectRefused(dir_ / "models", input, "one that holds the input");
  ExpectRefused(dir_ / "link/", input, "one that holds the input");
  ExpectRefused(dir_ / "models/a/sub/new/out", input, "one that lies in the input");
  ExpectRefused(dir_ / "link/a/new", input, "one that lies in the input");
  ExpectRefused(dir_ / "models/a", dir_ / "link/a/", "one that is the input");
  ExpectRefused(dir_ / "text.txt", dir_ / "text.txt", "one that is the input");
  ExpectRefused(dir_.path(), dir_ / "text.txt", "one that holds the input");
}

TEST_F(OutputApart, ResolvesPathsOfTheWorkingDirectory) {
  const fs::path before = fs::current_path();
  fs::current_path(dir_ / "models");
  EXPECT_KVC_ERROR(CheckOutputApart("a", {dir_ / "models/a"}), kUsage, "is the input");
  EXPECT_KVC_ERROR(CheckOutputApart(dir_ / "models/a/out", {"./a"}), kUsage, "lies in the input");
  EXPECT_KVC_ERROR(CheckOutputApart("..", {"a"}), kUsage, "holds the input");
  EXPECT_NO_THROW(CheckOutputApart("b", {"a"}));
  fs::current_path(before);
}

// The layout of a Hugging Face cache: a snapshot's files are links into blobs/.
TEST_F(OutputApart, CountsWhatAnInputLinksTo) {
  fs::create_directories(dir_ / "blobs");
  fs::create_directories(dir_ / "snapshot");
  WriteFile(dir_ / "blobs/1", "x");
  fs::create_symlink("../blobs/1", dir_ / "snapshot/model.safetensors");
  EXPECT_KVC_ERROR(CheckOutputApart(dir_ / "blobs", {dir_ / "snapshot"}), kUsage, "holds");
  // The link itself would go with its folder.
  fs::create_directory_symlink("models/a", dir_ / "alias");
  EXPECT_KVC_ERROR(CheckOutputApart(dir_.path(), {dir_ / "alias"}), kUsage, "holds");
}

TEST_F(OutputApart, LetsOthersBe) {
  const std::vector<fs::path> inputs = {dir_ / "models/a", dir_ / "text.txt", "", dir_ / "none"};
  for (const char* output : {"models/b", "models/aa", "out", "text.txt.npy", "models/a/../c"}) {
    EXPECT_NO_THROW(CheckOutputApart(dir_ / output, inputs)) << output;
  }
  EXPECT_NO_THROW(CheckOutputApart("", inputs));
}

TEST_F(OutputApart, HoldsWithForceToo) {
  const fs::path input = dir_ / "models/a";
  for (const char* output : {"models/a", "models", "models/a/new"}) {
    EXPECT_KVC_ERROR(OutputDirectory(dir_ / output, {input}, true), kUsage, "the input");
  }
  EXPECT_EQ(ReadFile(dir_ / "models/a/weights"), "x");
  EXPECT_EQ(NumEntries(dir_ / "models"), 1U);
}

// ---- what comes while the command runs

void MeetWhatCame(bool force, bool resumable) {
  const testing::TempDir dir;
  {
    OutputDirectory output(dir / "out", {}, force, resumable);
    WriteFile(output.path() / "new", "work");
    fs::create_directory(dir / "out");
    WriteFile(dir / "out/precious", "mine");
    EXPECT_KVC_ERROR(output.Commit(), kUsage, "out.finished");
  }
  EXPECT_EQ(ReadFile(dir / "out/precious"), "mine");
  EXPECT_EQ(ReadFile(dir / "out.finished/new"), "work");
  EXPECT_EQ(NumEntries(dir.path()), 2U);
}

TEST(OutputDirectory, RefusesWhatCameMeanwhile) {
  for (const bool force : {false, true}) {
    for (const bool resumable : {false, true}) MeetWhatCame(force, resumable);
  }
}

TEST(OutputDirectory, RefusesAFileThatCame) {
  const testing::TempDir dir;
  {
    OutputDirectory output(dir / "out", {}, true);
    WriteFile(output.path() / "new", "work");
    WriteFile(dir / "out", "mine");
    WriteFile(dir / "out.finished", "of another day");
    EXPECT_KVC_ERROR(output.Commit(), kUsage, "out.finished-1");
  }
  EXPECT_EQ(ReadFile(dir / "out"), "mine");
  EXPECT_EQ(ReadFile(dir / "out.finished"), "of another day");
  EXPECT_EQ(ReadFile(dir / "out.finished-1/new"), "work");
}

TEST(OutputDirectory, TakesAnEmptyDirectoryThatCame) {
  const testing::TempDir dir;
  OutputDirectory output(dir / "out", {}, false);
  WriteFile(output.path() / "new", "work");
  fs::create_directory(dir / "out");
  output.Commit();
  EXPECT_EQ(ReadFile(dir / "out/new"), "work");
}

TEST(OutputDirectory, ForceReplacesOnlyWhatWasThereAtTheStart) {
  const auto after = [](const std::function<void(const fs::path&)>& change) {
    const testing::TempDir dir;
    fs::create_directories(dir / "out/sub");
    WriteFile(dir / "out/sub/old", "old");
    {
      OutputDirectory output(dir / "out", {}, true);
      WriteFile(output.path() / "new", "work");
      change(dir / "out");
      EXPECT_KVC_ERROR(output.Commit(), kUsage, "untouched");
    }
    EXPECT_EQ(ReadFile(dir / "out.finished/new"), "work");
    EXPECT_EQ(NumEntries(dir.path()), 2U);
    return fs::exists(dir / "out/sub/precious") ? ReadFile(dir / "out/sub/precious")
                                                : ReadFile(dir / "out/sub/old");
  };
  EXPECT_EQ(after([](const fs::path& out) { WriteFile(out / "sub/precious", "mine"); }), "mine");
  EXPECT_EQ(after([](const fs::path& out) { WriteFile(out / "sub/old", "changed"); }), "changed");
  EXPECT_EQ(after([](const fs::path& out) {
              fs::remove_all(out);
              fs::create_directories(out / "sub");
              WriteFile(out / "sub/old", "another's");
            }),
            "another's");
}

TEST(OutputDirectory, ForceTakesThePlaceOfWhatWentMeanwhile) {
  const testing::TempDir dir;
  fs::create_directory(dir / "out");
  WriteFile(dir / "out/old", "old");
  OutputDirectory output(dir / "out", {}, true);
  WriteFile(output.path() / "new", "work");
  fs::remove_all(dir / "out");
  output.Commit();
  EXPECT_EQ(ReadFile(dir / "out/new"), "work");
}

TEST(OutputDirectory, RefusesALinkToNothing) {
  const testing::TempDir dir;
  fs::create_symlink("nowhere", dir / "out");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "out", {}, true), kUsage, "out");
}

TEST(DirectoryLock, IsOfOneAtATime) {
  const testing::TempDir dir;
  fs::create_directory(dir / "out");
  {
    const DirectoryLock lock(dir / "out");
    EXPECT_KVC_ERROR(DirectoryLock(dir / "out"), kUsage, "wait for that run");
  }
  EXPECT_NO_THROW(DirectoryLock(dir / "out"));
  EXPECT_KVC_ERROR(DirectoryLock(dir / "none"), kIo, "none");
}

}  // namespace
}  // namespace kvc
