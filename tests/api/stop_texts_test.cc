#include "api/stop_texts.h"

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::api {
namespace {

// Random texts of few letters in random pieces, against a search in the whole text.
TEST(StopTexts, FindTheFirstInPieces) {
  Rng rng(1);
  const auto text_of = [&](int64_t length) {
    std::string text;
    while (std::ssize(text) < length) text += static_cast<char>('a' + rng.NextBelow(3));
    return text;
  };
  int64_t ends = 0;
  for (int round = 0; round < 2000; ++round) {
    const std::vector<std::string> stops = {text_of(1 + static_cast<int64_t>(rng.NextBelow(5))),
                                            text_of(2 + static_cast<int64_t>(rng.NextBelow(6)))};
    const std::string text = text_of(static_cast<int64_t>(rng.NextBelow(30)));
    StopTexts matcher(stops);
    std::string certain;
    for (size_t at = 0; at < text.size() && !matcher.found();) {
      const size_t length = rng.NextBelow(4);
      certain += matcher.Push(std::string_view(text).substr(at, length));
      at += length;
    }
    const size_t first = std::min(text.find(stops[0]), text.find(stops[1]));
    EXPECT_EQ(matcher.found(), first != std::string::npos);
    certain += matcher.Finish();
    // Of two that end in different pieces, the one that is complete first counts.
    if (matcher.found()) {
      ++ends;
      EXPECT_TRUE(certain == text.substr(0, text.find(stops[0])) ||
                  certain == text.substr(0, text.find(stops[1])));
    } else {
      EXPECT_EQ(certain, text);
    }
  }
  EXPECT_GT(ends, 200);
  EXPECT_KVC_ERROR(StopTexts({""}), kUsage, "empty");
}

TEST(StopTexts, HoldBackOnlyWhatMayBeOne) {
  StopTexts matcher({"\n\nUser:"});
  EXPECT_EQ(matcher.Push("hello\n"), "hello");
  EXPECT_EQ(matcher.Push("you"), "\nyou");
  EXPECT_EQ(matcher.Push(" said\n\nUs"), " said");
  EXPECT_EQ(matcher.Push("er: hm"), "");
  EXPECT_TRUE(matcher.found());
  EXPECT_EQ(matcher.Push("more"), "");
}

}  // namespace
}  // namespace kvc::api
