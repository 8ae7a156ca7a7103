#include "core/io/atomic_file.h"

#include <string>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/mapped_file.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

TEST(AtomicFile, CopiesRangesOfAMappedFile) {
  const testing::TempDir dir;
  std::string text(3'000'001, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 7);
  WriteFile(dir / "from", text);
  MappedFile first(dir / "from");
  const MappedFile mapped(std::move(first));  // its file moves with it
  AtomicFile file(dir / "to");
  const std::string head = "head";
  file.Write(std::as_bytes(std::span<const char>(head)));
  file.Copy(mapped, 4099, 2'000'003);
  file.Copy(mapped, 1, 10);
  file.Copy(mapped, 3'000'001, 0);
  EXPECT_KVC_ERROR(file.Copy(mapped, 3'000'000, 2), kInternal, "3000000 + 2");
  EXPECT_KVC_ERROR(file.Copy(mapped, -1, 2), kInternal, "-1 + 2");
  file.Commit(/*sync=*/false);
  EXPECT_EQ(ReadFile(dir / "to"), head + text.substr(4099, 2'000'003) + text.substr(1, 10));
}

// A pipe or a full device takes no copy inside the kernel.
TEST(AtomicFile, CopiesToWhatIsNoFile) {
  const testing::TempDir dir;
  WriteFile(dir / "from", std::string(10'000, 'x'));
  const MappedFile mapped(dir / "from");
  AtomicFile sink("/dev/null");
  EXPECT_NO_THROW(sink.Copy(mapped, 0, 10'000));
  AtomicFile full("/dev/full");
  EXPECT_KVC_ERROR(full.Copy(mapped, 0, 10'000), kIo, "No space left");
}

// Killed writers leave temporaries; the next writer of the same target removes them, and nothing
// else: what a living writer has open, other targets' temporaries, folders and links stay.
TEST(AtomicFile, RemovesWhatKilledWritersLeft) {
  const testing::TempDir dir;
  WriteFile(dir / ".out.html.99-0.tmp", "half");
  WriteFile(dir / ".out.html.99-12.tmp", "half");
  const std::vector<const char*> kept = {".out.99-0.tmp",   ".out.html.99.tmp", ".out.html.x-0.tmp",
                                         ".out.html.-.tmp", ".out.html..tmp",   "out.html.99-0.tmp",
                                         ".out.html.99-0"};
  for (const char* name : kept) WriteFile(dir / name, "somebody's");
  fs::create_directory(dir / ".out.html.98-0.tmp");
  fs::create_symlink(dir / "out.html.99-0.tmp", dir / ".out.html.97-0.tmp");

  AtomicFile living(dir / "out.html");
  const std::vector<fs::path> before = TemporariesBeside(dir / "out.html");
  ASSERT_EQ(before.size(), 3u);  // the living one, the folder and the link
  AtomicFile second(dir / "out.html");
  EXPECT_EQ(TemporariesBeside(dir / "out.html").size(), 4u);
  for (const char* name : kept) EXPECT_TRUE(fs::exists(dir / name)) << name;

  living.Write(std::as_bytes(std::span<const char>("whole", 5)));
  living.Commit(/*sync=*/true);
  EXPECT_EQ(ReadFile(dir / "out.html"), "whole");
  EXPECT_EQ(TemporariesBeside(dir / "out.html").size(), 3u);
}

TEST(AtomicFile, TellsWhatATemporaryStandsFor) {
  for (const char* name : {"in", "out.html", ".hidden", "state.1-2.tmp"}) {
    const fs::path temporary = TemporaryNameBeside(fs::path("folder") / name);
    EXPECT_EQ(temporary.parent_path(), "folder");
    EXPECT_EQ(TargetOfTemporary(temporary.filename().string()), name);
  }
  for (const char* name : {"", ".tmp", ".1-2.tmp", "..1-2.tmp", "in.1-2.tmp", ".in.12.tmp",
                           ".in.1-.tmp", ".in.1-x.tmp", ".in.1-2", ".in1-2.tmp"}) {
    EXPECT_EQ(TargetOfTemporary(name), "") << name;
  }
}

// A relative name without a folder is beside the working directory's files.
TEST(AtomicFile, ListsTemporariesOfTheWorkingDirectory) {
  const testing::TempDir dir;
  const fs::path here = fs::current_path();
  fs::current_path(dir.path());
  WriteFile("in.7-0.tmp", "");
  WriteFile(".in.7-0.tmp", "");
  EXPECT_EQ(TemporariesBeside("in").size(), 1u);
  fs::current_path(here);
  EXPECT_TRUE(TemporariesBeside(dir / "absent" / "in").empty());
}

}  // namespace
}  // namespace kvc
