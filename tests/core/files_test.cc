#include "core/io/files.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/io/atomic_file.h"
#include "core/io/mapped_source.h"
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

TEST(Files, Maps) {
  const testing::TempDir dir;
  const std::string text(10'000, 'm');
  WriteFile(dir / "f", text);
  MappedFile first(dir / "f");
  const MappedFile mapped(std::move(first));
  EXPECT_TRUE(first.bytes().empty());  // NOLINT(bugprone-use-after-move): the moved-from state
  ASSERT_EQ(mapped.bytes().size(), text.size());
  mapped.Release(4000, 3000);
  mapped.Release(0, 0);
  mapped.Prefetch(4000, 3000);
  mapped.Prefetch(10'000, 0);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(mapped.bytes().data()), text.size()), text);
  EXPECT_KVC_ERROR(mapped.Release(9000, 1001), kInternal, "9000");
  EXPECT_KVC_ERROR(mapped.Prefetch(-1, 1), kInternal, "-1");
  WriteFile(dir / "empty", "");
  EXPECT_TRUE(MappedFile(dir / "empty").bytes().empty());
  EXPECT_KVC_ERROR(MappedFile(dir / "none"), kIo, "none");
}

TEST(Files, WritesMappedBytesFromTheirFile) {
  const testing::TempDir dir;
  std::string text(3'000'001, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i * i >> 7);
  WriteFile(dir / "from", text);
  auto first = std::make_unique<MappedFile>(dir / "from");
  const MappedFile mapped(std::move(*first));
  first.reset();  // what moved away stays known
  const auto bytes = mapped.bytes();
  const auto source = FindMappedSource(bytes.subspan(7));
  ASSERT_TRUE(source.has_value());
  EXPECT_EQ(source->offset, 7);
  AtomicFile file(dir / "to");
  file.Write(Bytes("head"));
  file.Write(bytes.subspan(4099, 2'000'003));  // inside the kernel
  file.Write(bytes.subspan(1, 10));            // too short for that
  file.Write(Bytes(text));                     // not mapped
  file.Commit(/*sync=*/false);
  EXPECT_EQ(ReadFile(dir / "to"),
            "head" + text.substr(4099, 2'000'003) + text.substr(1, 10) + text);
}

TEST(Files, KnowsWhatIsMapped) {
  const testing::TempDir dir;
  WriteFile(dir / "a", std::string(10'000, 'a'));
  std::span<const std::byte> gone;
  {
    const MappedFile mapped(dir / "a");
    gone = mapped.bytes();
    EXPECT_TRUE(FindMappedSource(gone).has_value());
    EXPECT_TRUE(FindMappedSource(gone.subspan(10'000)).has_value());
    EXPECT_FALSE(FindMappedSource({gone.data(), gone.size() + 1}).has_value());
  }
  EXPECT_FALSE(FindMappedSource(gone).has_value());
  const std::string text = "not mapped";
  EXPECT_FALSE(FindMappedSource(Bytes(text)).has_value());
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
