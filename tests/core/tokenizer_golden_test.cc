// Ids equal those of Hugging Face `tokenizers` for the committed tokenizers: one for each family's
// way of writing tokenizer.json, and variants of every component.

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

using testing::ExpectCases;
using testing::GoldenTokenizers;

class TokenizerStyle : public ::testing::TestWithParam<const char*> {};

TEST_P(TokenizerStyle, GivesGoldenIds) {
  const auto [golden, tokenizer] = testing::LoadGoldenStyle(GetParam());
  ExpectCases(*tokenizer, golden.at("cases"));
}

INSTANTIATE_TEST_SUITE_P(Styles, TokenizerStyle, testing::GoldenStyles(), testing::StyleName);

TEST(TokenizerComponents, GiveGoldenIds) {
  const Json golden = ReadJsonFile(GoldenTokenizers() / "components.json");
  ASSERT_GT(golden.at("variants").size(), 80U);
  for (const Json& variant : golden.at("variants")) {
    SCOPED_TRACE("variant: " + variant.at("name").get<std::string>());
    Json json = golden.at("base");
    for (const auto& [key, value] : variant.at("set").items()) json[key] = value;
    for (const auto& [key, value] : variant.at("model").items()) json["model"][key] = value;
    const testing::TempDir directory;
    testing::WriteText(directory / "tokenizer.json", json.dump());
    ExpectCases(*Tokenizer::Load(directory.path()), variant.at("cases"));
  }
}

TEST(TokenizerStyle, ReportsVocabulary) {
  const auto tokenizer = Tokenizer::Load(GoldenTokenizers() / "qwen-style");
  EXPECT_EQ(tokenizer->TokenId("<|im_end|>"), 702);
  EXPECT_EQ(tokenizer->TokenId("no such token"), std::nullopt);
  EXPECT_EQ(tokenizer->vocab_size(), 705);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
}

TEST(TokenizerStyle, GivesOldMergesAsPairs) {
  Json json = ReadJsonFile(GoldenTokenizers() / "llama3-style/tokenizer.json");
  for (Json& merge : json["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  json["model"].erase("type");  // older still
  const testing::TempDir directory;
  testing::WriteText(directory / "tokenizer.json", json.dump());
  ExpectCases(*Tokenizer::Load(directory.path()),
              ReadJsonFile(GoldenTokenizers() / "llama3-style.json").at("cases"));
}

}  // namespace
}  // namespace kvc
