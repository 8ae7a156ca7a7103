#include "core/io/json_lines.h"

#include <gtest/gtest.h>

namespace kvc {
namespace {

constexpr char kText[] = R"({
  "a": 1,
  "b": [
    "x{\"}, [",
    {"c":
       true, "d/e~f": [[
       null]]}
  ], "a": 2,
  "\u0067": -1.5e3
})";

TEST(JsonLines, FindsEveryValue) {
  const JsonLines lines(kText);
  EXPECT_EQ(lines.LineOf(""), 1);
  EXPECT_EQ(lines.LineOf("/a"), 2);
  EXPECT_EQ(lines.LineOf("/b"), 3);
  EXPECT_EQ(lines.LineOf("/b/0"), 4);
  EXPECT_EQ(lines.LineOf("/b/1"), 5);
  EXPECT_EQ(lines.LineOf("/b/1/c"), 5);  // the key's
  EXPECT_EQ(lines.LineOf(JsonPointer("/b/1", "d/e~f")), 6);
  EXPECT_EQ(lines.LineOf(JsonPointer(JsonPointer("/b/1", "d/e~f"), 0) + "/0"), 7);
  EXPECT_EQ(lines.LineOf("/g"), 9);
}

TEST(JsonLines, OfNothingIsTheLastOnTheWay) {
  const JsonLines lines(kText);
  EXPECT_EQ(lines.LineOf("/b/1/missing/deeper"), 5);
  EXPECT_EQ(lines.LineOf("/missing"), 1);
  EXPECT_EQ(JsonLines("3").LineOf("/x"), 1);
}

TEST(JsonLines, TakesLittleMemoryForDeepValues) {
  const std::string deep = std::string(200000, '[') + "\n1" + std::string(200000, ']');
  std::string pointer;
  for (int i = 0; i < 40; ++i) pointer += "/0";
  EXPECT_EQ(JsonLines(deep).LineOf(pointer), 1);
}

}  // namespace
}  // namespace kvc
