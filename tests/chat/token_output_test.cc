#include "chat/token_output.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"

namespace kvc::chat {
namespace {

std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text.find('\n', at);
    lines.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return lines;
}

TEST(TokenOutput, IsOneJsonObjectForEachToken) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / "qwen-style");
  const std::string texts[] = {"Grüße 世界 \"q\"\n", "two"};
  std::string out;
  TokenOutput output(*tokenizer, {}, 2, TokenFormat::kJsonLines,
                     [&](std::string_view piece) { out += piece; });
  size_t tokens = 0;
  std::vector<std::vector<int32_t>> ids;
  for (size_t i = 0; i < 2; ++i) {
    ids.push_back(tokenizer->Encode(texts[i], SpecialTokens::kNone));
    for (const int32_t id : ids[i]) EXPECT_TRUE(output.Take(i, id));
    tokens += ids[i].size();
  }
  output.Finish();
  const auto lines = Lines(out);
  ASSERT_EQ(lines.size(), tokens);  // nothing was held back to the end
  std::string together[2];
  std::vector<int32_t> told[2];
  for (const std::string& line : lines) {
    const Json json = ParseJson(line, "line");
    together[json.at("prompt").get<size_t>()] += json.at("text").get<std::string>();
    told[json.at("prompt").get<size_t>()].push_back(json.at("token_id").get<int32_t>());
  }
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(together[i], texts[i]);
    EXPECT_EQ(told[i], ids[i]);
    EXPECT_EQ(output.Text(i, ids[i]), texts[i]);
  }
}

TEST(TokenOutput, EndsEachTextAtItsStopText) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / "qwen-style");
  std::string out;
  TokenOutput output(*tokenizer, {"\n"}, 1, TokenFormat::kText,
                     [&](std::string_view piece) { out += piece; });
  const auto ids = tokenizer->Encode("one\ntwo", SpecialTokens::kNone);
  size_t taken = 0;
  while (taken < ids.size() && output.Take(0, ids[taken])) ++taken;
  EXPECT_LT(taken + 1, ids.size());
  output.Finish();
  EXPECT_EQ(out, "one");
  EXPECT_EQ(output.Text(0, ids), "one");
}

// A held-back part of a character comes at the end, as what it decodes to.
TEST(TokenOutput, TellsTheRest) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / "qwen-style");
  auto ids = tokenizer->Encode("a\xF0\x9F\xA6\x89", SpecialTokens::kNone);
  ids.pop_back();
  for (const TokenFormat format : {TokenFormat::kText, TokenFormat::kNothing}) {
    std::string out;
    TokenOutput output(*tokenizer, {"x"}, 1, format, [&](std::string_view piece) { out += piece; });
    for (const int32_t id : ids) EXPECT_TRUE(output.Take(0, id));
    output.Finish();
    EXPECT_EQ(out, format == TokenFormat::kText ? tokenizer->Decode(ids) : "");
    EXPECT_EQ(output.Text(0, ids), tokenizer->Decode(ids));
  }
}

}  // namespace
}  // namespace kvc::chat
