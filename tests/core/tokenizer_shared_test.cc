// Ids equal those of Hugging Face `tokenizers` and of SentencePiece for real tokenizers on real
// texts, which lie beside the project (../shared) or are fetched (build/models/smollm2).

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

const std::filesystem::path kRoot = kvc::testing::SourceRoot();

class SharedTokenizer : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    golden_ =
        ReadJsonFile(testing::GoldenTokenizers() / ("shared-" + std::string(GetParam()) + ".json"));
    for (const auto& [name, source] : golden_.at("files").items()) {
      const std::filesystem::path path = kRoot / source.get<std::string>();
      if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << path;
      std::filesystem::create_symlink(std::filesystem::absolute(path), directory_ / name);
    }
    tokenizer_ = Tokenizer::Load(directory_.path());
  }

  testing::TempDir directory_;
  Json golden_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(SharedTokenizer, GivesGoldenIdsOfStrings) {
  testing::ExpectCases(*tokenizer_, golden_.at("cases"));
}

TEST_P(SharedTokenizer, GivesGoldenIdsOfTexts) {
  for (const Json& item : golden_.at("texts")) {
    const std::filesystem::path path =
        kRoot / "../shared/data/text" / item.at("file").get<std::string>();
    if (!std::filesystem::exists(path)) GTEST_SKIP() << "needs " << path;
    SCOPED_TRACE(path.string());
    const std::string text = ReadFile(path);
    const std::vector<int32_t> ids = tokenizer_->Encode(text, SpecialTokens::kNone);
    EXPECT_EQ(ids.size(), item.at("count").get<size_t>());
    EXPECT_EQ(Sha256(std::as_bytes(std::span(ids))), item.at("sha256").get<std::string>());
    const std::string decoded = tokenizer_->Decode(ids);
    EXPECT_EQ(Sha256(std::as_bytes(std::span(decoded))),
              item.at("decoded_sha256").get<std::string>());
    // All but stories260k on WikiText: that has "<unk>" in it, behind which a space is put.
    EXPECT_EQ(decoded == text, item.at("exact").get<bool>());
  }
}

INSTANTIATE_TEST_SUITE_P(Real,
                         SharedTokenizer,
                         ::testing::Values("gpt2-json",
                                           "gpt2-files",
                                           "stories260k",
                                           "smollm2",
                                           "mistral-v1",
                                           "mistral-v3"),
                         testing::StyleName);

}  // namespace
}  // namespace kvc
