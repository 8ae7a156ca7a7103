#include "core/io/mapped_file.h"

#include <string>

#include <gtest/gtest.h>

#include "core/io/atomic_file.h"
#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

TEST(MappedFile, MapsAndMoves) {
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
  EXPECT_KVC_ERROR(MappedFile(dir.path()), kIo, "directory");
}

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

}  // namespace
}  // namespace kvc
