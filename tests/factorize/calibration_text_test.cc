#include "factorize/calibration_text.h"

#include <fstream>
#include <memory>
#include <set>
#include <string>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize {
namespace {

// Numbers in order: no two windows of its tokens are the same.
class CalibrationTextTest : public ::testing::Test {
 protected:
  CalibrationText Cut(int64_t numbers) {
    const auto path = temp_.path() / "numbers.txt";
    std::ofstream file(path);
    for (int64_t i = 0; i < numbers; ++i) file << 1000 + i << ' ';
    file.close();
    TextRequest request;
    request.files = {path};
    request.window = 32;
    request.calibration = 128;
    request.held_back = 3;
    request.tuning = 320;
    return CutText(*tokenizer_, request);
  }

  kvc::testing::TempDir temp_;
  std::unique_ptr<Tokenizer> tokenizer_ =
      Tokenizer::Load(kvc::testing::SourceRoot() / "examples/models/needle-llama");
};

TEST_F(CalibrationTextTest, TheWholeModelIsTunedOnOtherWindowsThanItsLayers) {
  const CalibrationText text = Cut(2000);
  EXPECT_EQ(text.tuning.size(), 10u);
  EXPECT_EQ(text.global_tuning.size(), 10u);
  std::set<std::vector<int32_t>> windows(text.tuning.begin(), text.tuning.end());
  windows.insert(text.global_tuning.begin(), text.global_tuning.end());
  windows.insert(text.held_back.begin(), text.held_back.end());
  EXPECT_EQ(windows.size(), 23u);
  for (const auto& window : windows) EXPECT_EQ(window.size(), 32u);
}

// The first length that is enough.
TEST_F(CalibrationTextTest, AShortTextGivesBothSomeOfTheSameWindows) {
  int64_t numbers = 100;
  CalibrationText text;
  for (; text.tuning.empty(); numbers += 5) {
    try {
      text = Cut(numbers);
    } catch (const Error& error) {
      ASSERT_EQ(error.kind(), ErrorKind::kBadInput);
    }
  }
  EXPECT_EQ(text.tuning.size(), 10u);
  EXPECT_EQ(text.global_tuning.size(), 10u);
  std::set<std::vector<int32_t>> windows(text.tuning.begin(), text.tuning.end());
  windows.insert(text.global_tuning.begin(), text.global_tuning.end());
  EXPECT_LT(windows.size(), 20u);
  for (const auto& window : text.held_back) EXPECT_FALSE(windows.contains(window));
}

}  // namespace
}  // namespace kvc::factorize
