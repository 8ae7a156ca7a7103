// Pieces of a streamed text are whole characters, and together the decoded text.

#include "core/tokenizer/text_stream.h"

#include <gtest/gtest.h>

#include "core/io/text_input.h"
#include "tests/core/tokenizer_cases.h"

namespace kvc {
namespace {

using testing::GoldenTokenizers;

// The pieces of `ids`, each checked to be UTF-8.
std::vector<std::string> Pieces(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  TextStream stream(tokenizer);
  std::vector<std::string> pieces;
  for (const int32_t id : ids) pieces.push_back(stream.Push(id));
  pieces.push_back(stream.Finish());
  for (const std::string& piece : pieces) EXPECT_NO_THROW(CheckUtf8(piece, "piece"));
  return pieces;
}

std::string Together(const std::vector<std::string>& pieces) {
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

class TextStreamStyle : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Styles, TextStreamStyle, testing::GoldenStyles(), testing::StyleName);

TEST_P(TextStreamStyle, PiecesAreTheText) {
  const auto [golden, tokenizer] = testing::LoadGoldenStyle(GetParam());
  for (const Json& item : golden.at("cases")) {
    const auto ids = item.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(Together(Pieces(*tokenizer, ids)), tokenizer->Decode(ids)) << item.at("text");
  }
}

// A character of several tokens comes with its last one; one that stays incomplete comes at the
// end.
TEST_P(TextStreamStyle, HoldsPartsOfCharactersBack) {
  const auto tokenizer = Tokenizer::Load(GoldenTokenizers() / GetParam());
  std::vector<int32_t> ids =
      tokenizer->Encode("a \xE2\x98\x83\xF0\x9F\xA6\x89", SpecialTokens::kNone);
  const auto pieces = Pieces(*tokenizer, ids);
  EXPECT_EQ(Together(pieces), tokenizer->Decode(ids));
  EXPECT_EQ(pieces.back(), "");
  ids.pop_back();
  std::vector<int32_t> twice = ids;
  twice.insert(twice.end(), ids.begin(), ids.end());
  Pieces(*tokenizer, twice);  // an owl without its end, in the middle and at the end
  TextStream stream(*tokenizer);
  for (const int32_t id : tokenizer->Encode("one", SpecialTokens::kNone)) (void)stream.Push(id);
  EXPECT_EQ(stream.Finish(), "");
  std::string again;
  for (const int32_t id : tokenizer->Encode("two", SpecialTokens::kNone)) again += stream.Push(id);
  EXPECT_EQ(again, tokenizer->Decode(tokenizer->Encode("two", SpecialTokens::kNone)));
}

}  // namespace
}  // namespace kvc
