#include "core/io/mapped_file.h"

#include <string>

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace kvc
