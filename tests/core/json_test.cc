#include "core/io/json.h"

#include <string>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

TEST(Json, NamesLineAndColumnOfAnError) {
  EXPECT_KVC_ERROR((void)ParseJson("{\n  \"a\": 1,\n  \"b\" 2\n}", "x.json"), kBadInput,
                   "x.json: expected JSON, got a syntax error at line 3, column 7");
  EXPECT_KVC_ERROR((void)ParseJson("", "x.json"), kBadInput, "line 1, column 1");
  EXPECT_KVC_ERROR((void)ParseJson("{} {}", "x.json"), kBadInput, "line 1, column 4");
  EXPECT_KVC_ERROR((void)ParseJson(std::string("{}\0x", 4), "x.json"), kBadInput, "offset 2");
  EXPECT_KVC_ERROR((void)ParseJson("{\"a\": NaN}", "x.json"), kBadInput, "line 1");
  EXPECT_KVC_ERROR((void)ParseJson(std::string("{}\0x", 4), "x.json"), kBadInput, "offset 2");
  EXPECT_KVC_ERROR((void)ParseJson("\"\xff\"", "x.json"), kBadInput, "offset 1");
}

TEST(Json, DeepNestingIsNoProblem) {
  const std::string deep(1'000'000, '[');
  EXPECT_KVC_ERROR((void)ParseJson(deep, "x.json"), kBadInput, "x.json");
  const std::string closed = std::string(100'000, '[') + std::string(100'000, ']');
  const Json json = ParseJson("{\"a\": " + closed + "}", "x.json");
  EXPECT_KVC_ERROR((void)GetInt(json, "a", "x.json"), kBadInput, "got an array");
}

TEST(Json, TypedAccessNamesOriginAndKey) {
  const Json json = ParseJson(
      R"({"i": 5, "d": 2.5, "b": true, "s": "text", "n": null, "a": [1], "o": {},
          "big": 18446744073709551615})",
      "c.json");
  EXPECT_EQ(GetInt(json, "i", "c.json"), 5);
  EXPECT_EQ(GetInt(json, "absent", "c.json", 7), 7);
  EXPECT_EQ(GetInt(json, "n", "c.json", 7), 7);
  EXPECT_EQ(GetDouble(json, "i", "c.json"), 5.0);
  EXPECT_EQ(GetDouble(json, "d", "c.json", 1.0), 2.5);
  EXPECT_TRUE(GetBool(json, "b", "c.json", false));
  EXPECT_TRUE(GetBool(json, "absent", "c.json", true));
  EXPECT_EQ(GetString(json, "s", "c.json"), "text");
  EXPECT_EQ(GetString(json, "n", "c.json", "other"), "other");
  EXPECT_EQ(GetArray(json, "a", "c.json").size(), 1U);
  EXPECT_TRUE(GetObject(json, "o", "c.json").empty());
  EXPECT_KVC_ERROR((void)GetInt(json, "s", "c.json"), kBadInput,
                   "c.json: s: expected an integer, got \"text\"");
  EXPECT_KVC_ERROR((void)GetInt(json, "d", "c.json"), kBadInput, "got 2.5");
  EXPECT_KVC_ERROR((void)GetInt(json, "big", "c.json"), kBadInput, "big");
  EXPECT_KVC_ERROR((void)GetInt(json, "absent", "c.json"), kBadInput, "\"absent\"");
  EXPECT_KVC_ERROR((void)GetInt(json, "n", "c.json"), kBadInput, "got null");
  EXPECT_KVC_ERROR((void)GetBool(json, "i", "c.json", true), kBadInput, "true or false, got 5");
  EXPECT_KVC_ERROR((void)GetObject(json, "a", "c.json"), kBadInput, "expected an object");
  EXPECT_KVC_ERROR((void)GetArray(json, "o", "c.json"), kBadInput, "expected an array");
  EXPECT_KVC_ERROR((void)GetInt(Json(3), "i", "c.json"), kBadInput, "expected an object, got 3");
}

TEST(Json, UnknownKeysAreRefused) {
  const Json json = ParseJson(R"({"a": 1, "z": 2})", "m.json");
  EXPECT_NO_THROW(CheckKeys(json, {"a", "z"}, "m.json"));
  EXPECT_KVC_ERROR(CheckKeys(json, {"a"}, "m.json"), kBadInput, "\"z\"");
}

TEST(Json, WritesInOrderAndReadsBack) {
  const testing::TempDir dir;
  Json json;
  json["z"] = 1;
  json["a"] = {1, 2};
  WriteJsonFile(dir / "x.json", json);
  EXPECT_EQ(ReadFile(dir / "x.json"), "{\n  \"z\": 1,\n  \"a\": [\n    1,\n    2\n  ]\n}\n");
  EXPECT_EQ(ReadJsonFile(dir / "x.json"), json);
  EXPECT_KVC_ERROR((void)ReadJsonFile(dir / "none.json"), kIo, "none.json");
  EXPECT_KVC_ERROR((void)ReadJsonFile(dir / "x.json", 3), kBadInput, "at most 3 bytes");
}

}  // namespace
}  // namespace kvc
