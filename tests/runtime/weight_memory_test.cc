// Weights that are read into memory of their own.

#include "runtime/cpu/weight_memory.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/temp_dir.h"

namespace kvc::runtime {
namespace {

class WeightMemoryTest : public ::testing::Test {
 protected:
  WeightMemoryTest() {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<char>(i * 7 + i / 256);
    std::ofstream(path_, std::ios::binary).write(bytes_.data(), std::ssize(bytes_));
    file_ = std::make_unique<MappedFile>(path_);
  }

  Tensor At(int64_t offset) const {
    Tensor tensor;
    tensor.data = file_->bytes().data() + offset;
    tensor.file = file_.get();
    tensor.offset = offset;
    return tensor;
  }

  testing::TempDir folder_;
  std::filesystem::path path_ = folder_.path() / "weights";
  std::vector<char> bytes_ = std::vector<char>((9 << 20) + 5);
  std::unique_ptr<MappedFile> file_;
  ThreadPool pool_{2};
};

TEST_F(WeightMemoryTest, HoldsTheBytesOfTheFile) {
  const int64_t large = (8 << 20) + 3;  // more than a part
  WeightMemory memory(WeightMemory::PlaceBytes(large) + WeightMemory::PlaceBytes(100));
  const std::byte* a = memory.Add(At(64), large, pool_);
  const std::byte* b = memory.Add(At(8), 100, pool_);
  ASSERT_NE(a, nullptr);
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a) % (2 << 20), 0U);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(b) % 64, 0U);
  EXPECT_EQ(std::memcmp(a, bytes_.data() + 64, large), 0);
  EXPECT_EQ(std::memcmp(b, bytes_.data() + 8, 100), 0);
  WeightMemory moved = std::move(memory);
  EXPECT_EQ(std::memcmp(a, bytes_.data() + 64, large), 0);
}

TEST_F(WeightMemoryTest, LeavesInTheFileWhatItCannotTake) {
  WeightMemory none;
  EXPECT_EQ(none.Add(At(0), 100, pool_), nullptr);
  WeightMemory memory(256);
  EXPECT_EQ(memory.Add(At(0), 0, pool_), nullptr);
  EXPECT_EQ(memory.Add(At(0), int64_t{5} << 20, pool_), nullptr) << "no room";
  EXPECT_EQ(memory.Add(At((9 << 20) - 20), 200, pool_), nullptr) << "the file ends before";
  Tensor constant = At(0);
  constant.file = nullptr;
  EXPECT_EQ(memory.Add(constant, 100, pool_), nullptr);
  EXPECT_NE(memory.Add(At(0), 100, pool_), nullptr);
}

}  // namespace
}  // namespace kvc::runtime
