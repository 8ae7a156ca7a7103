#include "core/tokenizer/stop_texts.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/expect_error.h"

namespace kvc {
namespace {

// Where the stop text begins that is complete first, of two with one end the longer.
size_t Beginning(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t first = std::string::npos;
    for (const std::string& stop : stops) {
      if (std::string_view(text).substr(0, end).ends_with(stop)) {
        first = std::min(first, end - stop.size());
      }
    }
    if (first != std::string::npos) return first;
  }
  return std::string::npos;
}

// The text in front of the first stop text, however the text is cut.
TEST(StopTexts, EndInFrontOfTheFirst) {
  std::mt19937 random(11);
  const auto word = [&](size_t most) {
    std::string text;
    for (size_t n = 1 + random() % most; n > 0; --n) text += "ab\n"[random() % 3];
    return text;
  };
  int found = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {word(4), word(5)};
    const std::string text = word(30);
    const size_t end = Beginning(text, stops);
    StopTexts search(stops);
    std::string told;
    for (size_t at = 0; at < text.size();) {
      const size_t length = std::min(text.size() - at, 1 + random() % 6);
      told += search.Push(std::string_view(text).substr(at, length));
      at += length;
      EXPECT_EQ(told, text.substr(0, told.size()));
      EXPECT_LE(told.size(), std::min(end, at));
    }
    EXPECT_EQ(search.found(), end != std::string::npos);
    EXPECT_EQ(told + search.Finish(), text.substr(0, end));
    if (search.found()) ++found;
  }
  EXPECT_GT(found, 500);
  EXPECT_LT(found, 1950);
}

TEST(StopTexts, HoldNothingBackWithoutNeed) {
  StopTexts search({"\nUser:"});
  EXPECT_EQ(search.Push("One"), "One");
  EXPECT_EQ(search.Push(" two\nU"), " two");
  EXPECT_EQ(search.Push("ncle"), "\nUncle");
  EXPECT_EQ(StopTexts({}).Push("\n"), "\n");
  EXPECT_KVC_ERROR(StopTexts({"a", ""}), kUsage, "empty");
}

}  // namespace
}  // namespace kvc
