#include "core/io/files.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

std::span<const std::byte> Bytes(std::string_view text) {
  return std::as_bytes(std::span<const char>(text));
}

size_t NumEntries(const fs::path& directory) {
  return static_cast<size_t>(std::distance(fs::directory_iterator(directory), {}));
}

TEST(Files, ReadsWhatWasWritten) {
  const testing::TempDir dir;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{4096}, size_t{3'000'001}}) {
    const std::string text(size, 'x');
    WriteFile(dir / "f", text);
    EXPECT_EQ(ReadFile(dir / "f"), text);
  }
  EXPECT_EQ(NumEntries(dir.path()), 1U);  // no temporary file is left
  EXPECT_KVC_ERROR((void)ReadFile(dir / "f", 3'000'000), kBadInput, "at most 3000000");
  EXPECT_EQ(ReadFile(dir / "f", 3'000'001).size(), 3'000'001U);
  EXPECT_KVC_ERROR((void)ReadFile(dir / "none"), kIo, "No such file");
  EXPECT_KVC_ERROR((void)ReadFile(dir.path()), kIo, "directory");
}

TEST(Files, ReadsWhatHasNoSize) {
  EXPECT_FALSE(ReadFile("/proc/self/status").empty());
  EXPECT_KVC_ERROR((void)ReadFile("/dev/zero", 5000), kBadInput, "at most 5000");
}

TEST(Files, FailedWriteLeavesNothing) {
  const testing::TempDir dir;
  EXPECT_KVC_ERROR(WriteFile(dir / "no/such/f", "x"), kIo, "no/such/f");
  EXPECT_KVC_ERROR(WriteFile(dir.path(), "x"), kIo, "directory");
  EXPECT_KVC_ERROR(WriteFile("/dev/full", "x"), kIo, "No space left");
  EXPECT_FALSE(fs::is_regular_file("/dev/full"));
  EXPECT_EQ(NumEntries(dir.path()), 0U);
}

TEST(Files, WriteFollowsALink) {
  const testing::TempDir dir;
  WriteFile(dir / "real", "old");
  fs::create_symlink("real", dir / "link");
  WriteFile(dir / "link", "new");
  EXPECT_TRUE(fs::is_symlink(dir / "link"));
  EXPECT_EQ(ReadFile(dir / "real"), "new");
}

// Vectors of FIPS 180-2.
TEST(Files, Sha256) {
  EXPECT_EQ(Sha256(Bytes("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256(Bytes("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const testing::TempDir dir;
  WriteFile(dir / "million", std::string(1'000'000, 'a'));
  EXPECT_EQ(Sha256File(dir / "million"),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  WriteFile(dir / "two", std::string(3'000'000, 'a'));  // more than one read
  EXPECT_EQ(Sha256File(dir / "two"), Sha256(Bytes(std::string(3'000'000, 'a'))));
  EXPECT_KVC_ERROR((void)Sha256File(dir.path()), kIo, "directory");
}

TEST(Files, CopiesReadOnlyFilesAsWritable) {
  const testing::TempDir dir;
  WriteFile(dir / "a", "text");
  fs::permissions(dir / "a", fs::perms::owner_read);
  CopyFile(dir / "a", dir / "b");
  EXPECT_EQ(ReadFile(dir / "b"), "text");
  EXPECT_NE(fs::status(dir / "b").permissions() & fs::perms::owner_write, fs::perms::none);
  EXPECT_KVC_ERROR(CopyFile(dir / "none", dir / "c"), kIo, "none");
}

TEST(Files, WritesNpy) {
  const testing::TempDir dir;
  WriteNpy(dir / "a.npy", std::vector<float>{1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F}, {2, 3});
  const std::string text = ReadFile(dir / "a.npy");
  EXPECT_EQ(text.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t header =
      static_cast<unsigned char>(text[8]) + 256 * static_cast<unsigned char>(text[9]);
  EXPECT_EQ((10 + header) % 64, 0U);
  EXPECT_EQ(text[9 + header], '\n');
  EXPECT_NE(text.find("'descr': '<f4', 'fortran_order': False, 'shape': (2,3,)"),
            std::string::npos);
  EXPECT_EQ(text.size(), 10 + header + 24);
  WriteNpy(dir / "b.npy", std::span<const int64_t>{}, {0});
  EXPECT_NE(ReadFile(dir / "b.npy").find("'<i8'"), std::string::npos);
  EXPECT_KVC_ERROR(WriteNpy(dir / "c.npy", std::vector<float>{1.0F}, {2}), kInternal, "expected 2");
}

}  // namespace
}  // namespace kvc
