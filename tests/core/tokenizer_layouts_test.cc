// Ids equal those of Hugging Face transformers for directories as people have them: which of the
// files are there, and what tokenizer_config.json and its companions say.

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

// Writes the files of a layout: copies of golden ones, or JSON.
void WriteFiles(const Json& files, const std::filesystem::path& directory) {
  for (const auto& [name, content] : files.items()) {
    if (content.is_string()) {
      std::filesystem::copy_file(testing::GoldenTokenizers() / content.get<std::string>(),
                                 directory / name);
    } else {
      testing::WriteText(directory / name, content.dump());
    }
  }
}

std::string HashOf(const std::vector<int32_t>& ids) {
  return Sha256(std::as_bytes(std::span(ids))).substr(0, 12);
}

std::optional<int32_t> OptionalId(const Json& value) {
  return value.is_null() ? std::nullopt : std::optional<int32_t>(value.get<int32_t>());
}

class TokenizerLayouts : public ::testing::Test {
 protected:
  void SetUp() override {
    golden_ = ReadJsonFile(testing::GoldenTokenizers() / "layouts.json").at("layouts");
    strings_ = ReadJsonFile(testing::GoldenTokenizers() / "strings.json").at("texts");
    ASSERT_GT(golden_.size(), 35U);
    ASSERT_GT(strings_.size(), 500U);
  }

  Json golden_;
  Json strings_;
};

// The files of GPT-2's kind in a thin checkpoint and in a bundle, which have no model_type of their
// own.
TEST_F(TokenizerLayouts, ThinCheckpointsAndBundlesKnowTheirModel) {
  const auto bos_with = [](const char* file, const Json& json) {
    const testing::TempDir directory;
    WriteFiles({{"vocab.json", "gpt2-style/vocab.json"}, {"merges.txt", "gpt2-style/merges.txt"}},
               directory.path());
    testing::WriteText(directory / file, json.dump());
    return Tokenizer::Load(directory.path())->bos_id();
  };
  for (const char* family : {"gpt2", "qwen2"}) {
    const auto expected = family == std::string("gpt2") ? std::optional(600) : std::nullopt;
    const Json thin = {{"model_type", "kvc"}, {"kvc", {{"family", family}}}};
    EXPECT_EQ(bos_with("config.json", thin), expected);
    EXPECT_EQ(bos_with("manifest.json", {{"model", thin}}), expected);
    EXPECT_EQ(bos_with("manifest.json", {{"model", {{"model_type", family}}}}), expected);
  }
  EXPECT_EQ(bos_with("manifest.json", {{"model", nullptr}}), 600);
}

TEST_F(TokenizerLayouts, GiveTheIdsOfTransformers) {
  for (const Json& layout : golden_) {
    SCOPED_TRACE("layout: " + layout.at("name").get<std::string>());
    const testing::TempDir directory;
    WriteFiles(layout.at("files"), directory.path());
    const auto tokenizer = Tokenizer::Load(directory.path());
    EXPECT_EQ(tokenizer->bos_id(), OptionalId(layout.at("bos")));
    EXPECT_EQ(tokenizer->eos_id(), OptionalId(layout.at("eos")));
    for (const Json& item : layout.at("cases")) {
      const auto ids = item.at("ids").get<std::vector<int32_t>>();
      EXPECT_EQ(tokenizer->Encode(item.at("text").get<std::string>(), SpecialTokens::kNone), ids)
          << item.at("text").dump(-1, ' ', true);
      EXPECT_EQ(tokenizer->Decode(ids), item.at("decoded").get<std::string>());
    }
    for (size_t i = 0; i < strings_.size(); ++i) {
      const auto ids = tokenizer->Encode(strings_[i].get<std::string>(), SpecialTokens::kNone);
      EXPECT_EQ(HashOf(ids), layout.at("hashes")[i].get<std::string>())
          << strings_[i].dump(-1, ' ', true);
    }
  }
}

}  // namespace
}  // namespace kvc
