// Ids equal those of Hugging Face transformers for directories as people have them: which of the
// files are there, and what tokenizer_config.json and its companions say.

#include <optional>
#include <string>
#include <vector>

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

// As in transformers 5, where no class adds <s> by itself.
TEST_F(TokenizerLayouts, OnlyAddBosTokenPutsBosBeforeAText) {
  const auto encode = [](const Json& config) {
    const testing::TempDir directory;
    WriteFiles({{"tokenizer.model", "spm-bpe.model"}, {"config.json", {{"model_type", "llama"}}}},
               directory.path());
    if (!config.is_null()) testing::WriteText(directory / "tokenizer_config.json", config.dump());
    return Tokenizer::Load(directory.path())->Encode("Hello", SpecialTokens::kAdd);
  };
  using Ids = std::vector<int32_t>;
  const auto first = [&](const Json& config) {
    const Ids ids = encode(config);
    return Ids(ids.begin(), ids.begin() + 3);
  };
  EXPECT_EQ(first(nullptr), (Ids{317, 350, 318}));
  EXPECT_EQ(first({{"add_bos_token", true}}), (Ids{1, 317, 350}));
  EXPECT_EQ(first({{"tokenizer_class", "LlamaTokenizer"}}), (Ids{317, 350, 318}));
  EXPECT_EQ(first({{"tokenizer_class", "LlamaTokenizer"}, {"add_bos_token", true}}),
            (Ids{1, 317, 350}));
}

// Ids of transformers 5.23 for a tokenizer.json of 703 tokens without <|endoftext|>.
TEST_F(TokenizerLayouts, ClassesHaveSpecialTokensOfTheirOwn) {
  struct Case {
    const char* model_type;
    Json config;
    std::optional<int32_t> bos, eos;
    std::optional<int32_t> end_of_text;
  };
  const Json gpt2 = {{"tokenizer_class", "GPT2Tokenizer"}};
  const Json qwen2 = {{"tokenizer_class", "Qwen2TokenizerFast"}};
  const Json generic = {{"tokenizer_class", "PreTrainedTokenizerFast"}};
  const Json own = {
      {"tokenizer_class", "GPT2Tokenizer"}, {"bos_token", "<x>"}, {"eos_token", nullptr}};
  const auto none = std::nullopt;
  const std::vector<Case> cases = {
      {"gpt2", nullptr, 703, 703, 703},     {"gpt2", Json::object(), 703, 703, 703},
      {"llama", gpt2, 703, 703, 703},       {"llama", own, 703, none, 704},
      {"llama", qwen2, none, 703, 703},     {"gpt2", qwen2, none, 703, 703},
      {"qwen2", nullptr, none, 703, 703},   {"qwen2", gpt2, none, 703, 703},
      {"qwen2", generic, none, 703, 703},   {"qwen2", own, 703, none, 704},
      {"qwen3", nullptr, none, 703, 703},   {"qwen3", gpt2, 703, 703, 703},
      {"qwen3", generic, none, none, none}, {"gpt2", generic, none, none, none},
      {"llama", nullptr, none, none, none}, {"llama", generic, none, none, none},
  };
  Json tokenizer = ReadJsonFile(testing::GoldenTokenizers() / "llama3-style/tokenizer.json");
  tokenizer["post_processor"] = nullptr;
  for (const Case& item : cases) {
    SCOPED_TRACE(std::string(item.model_type) + " " + item.config.dump());
    const testing::TempDir directory;
    WriteFiles({{"tokenizer.json", tokenizer}, {"config.json", {{"model_type", item.model_type}}}},
               directory.path());
    if (!item.config.is_null()) {
      testing::WriteText(directory / "tokenizer_config.json", item.config.dump());
    }
    const auto loaded = Tokenizer::Load(directory.path());
    EXPECT_EQ(loaded->bos_id(), item.bos);
    EXPECT_EQ(loaded->eos_id(), item.eos);
    EXPECT_EQ(loaded->TokenId("<|endoftext|>"), item.end_of_text);
  }
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
