#include <string>

#include <gtest/gtest.h>

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
    OutputDirectory output(dir / "out/", /*force=*/false);
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
    OutputDirectory output(dir / "a/b/out", /*force=*/false);
    WriteFile(output.path() / "f", "x");
  }
  EXPECT_EQ(NumEntries(dir.path()), 0U);  // the parents that it made are gone, too
}

TEST(OutputDirectory, RefusesWhatIsThere) {
  const testing::TempDir dir;
  WriteFile(dir / "file", "x");
  fs::create_directory(dir / "full");
  WriteFile(dir / "full/old", "x");
  fs::create_directory(dir / "empty");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "file", true), kUsage, "got a file");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "full", false), kUsage, "--force");
  EXPECT_KVC_ERROR(OutputDirectory("/", true), kUsage, "working directory");
  EXPECT_KVC_ERROR(OutputDirectory(fs::current_path(), true), kUsage, "working directory");
  EXPECT_KVC_ERROR(OutputDirectory(dir / "file/out", false), kIo, "out");
  OutputDirectory output(dir / "empty", false);
  output.Commit();
  EXPECT_TRUE(fs::is_directory(dir / "empty"));
}

TEST(OutputDirectory, ForceReplacesOnlyAtCommit) {
  const testing::TempDir dir;
  fs::create_directory(dir / "out");
  WriteFile(dir / "out/old", "x");
  { OutputDirectory output(dir / "out", /*force=*/true); }
  EXPECT_TRUE(fs::exists(dir / "out/old"));
  {
    OutputDirectory output(dir / "out", /*force=*/true);
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
    OutputDirectory output(dir / "out", false, /*resumable=*/true);
    EXPECT_EQ(output.path().filename(), "out.partial");
    WriteFile(output.path() / "step1", "x");
    EXPECT_KVC_ERROR(OutputDirectory(dir / "out", false, true), kUsage, "locked");
  }
  {
    OutputDirectory output(dir / "out", false, /*resumable=*/true);
    EXPECT_EQ(ReadFile(output.path() / "step1"), "x");
    output.Commit();
  }
  EXPECT_EQ(ReadFile(dir / "out/step1"), "x");
  EXPECT_EQ(NumEntries(dir.path()), 1U);
}

}  // namespace
}  // namespace kvc
