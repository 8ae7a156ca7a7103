// Random texts and broken files: a text comes back, a broken file is an error, nothing crashes.

#include <random>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/text_input.h"
#include "core/tokenizer/unicode.h"
#include "tests/core/tokenizer_cases.h"
#include "tests/support/mutate.h"
#include "tests/support/temp_dir.h"

namespace kvc {
namespace {

constexpr uint32_t kSeed = 20240607;
constexpr int kFiles = 200;

using testing::Below;

// Characters of all lengths, with many spaces, digits and marks among them.
std::string RandomText(std::mt19937& random, size_t characters) {
  constexpr std::u32string_view kFrequent = U" \t\n\r0'sS\u0301\u00a0\u2581<|>\u4e2d";
  std::string text;
  while (characters-- > 0) {
    constexpr std::array<char32_t, 4> kLimits = {0x80, 0x800, 0x10000, 0x110000};
    char32_t point = random() % kLimits[Below(random, kLimits.size())];
    if (point >= 0xD800 && point < 0xE000) point = U' ';
    if (random() % 2 == 0) point = kFrequent[Below(random, kFrequent.size())];
    tokenizer::AppendUtf8(point, text);
  }
  return text;
}

class ByteLevelFuzz : public ::testing::TestWithParam<const char*> {};

TEST_P(ByteLevelFuzz, DecodingGivesTheTextBack) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / GetParam());
  std::mt19937 random(kSeed);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = RandomText(random, Below(random, 60));
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, SpecialTokens::kNone)), text);
  }
}

TEST_P(ByteLevelFuzz, BytesThatAreNoUtf8AreRefused) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / GetParam());
  std::mt19937 random(kSeed);
  int refused = 0;
  for (int i = 0; i < 1000; ++i) {
    std::string text;
    for (size_t n = Below(random, 12); n > 0; --n) text += static_cast<char>(random() % 256);
    try {
      EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, SpecialTokens::kNone)), text);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kBadInput);
      EXPECT_FALSE(tokenizer::IsUtf8(text));
      ++refused;
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_P(ByteLevelFuzz, AnyIdsDecodeToUtf8) {
  const auto tokenizer = Tokenizer::Load(testing::GoldenTokenizers() / GetParam());
  std::mt19937 random(kSeed);
  for (int i = 0; i < 500; ++i) {
    std::vector<int32_t> ids(Below(random, 20));
    for (int32_t& id : ids) id = static_cast<int32_t>(random() % 1000) - 100;
    EXPECT_TRUE(tokenizer::IsUtf8(tokenizer->Decode(ids)));
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers,
                         ByteLevelFuzz,
                         ::testing::Values("gpt2-style", "llama3-style", "deepseek-style"),
                         testing::StyleName);

// Loads the file; when it loads, it also encodes. Only kvc::Error may come out of it.
void LoadAndUse(const std::filesystem::path& directory, int& loaded) {
  try {
    const auto tokenizer = Tokenizer::Load(directory);
    ++loaded;
    const auto ids = tokenizer->Encode(" Hello <s> w\u00f6rld 12\n\u2581x", SpecialTokens::kAdd);
    EXPECT_TRUE(tokenizer::IsUtf8(tokenizer->Decode(ids)));
  } catch (const Error&) {
  }
}

class FileFuzz : public ::testing::TestWithParam<std::pair<const char*, const char*>> {};

TEST_P(FileFuzz, BrokenFilesAreErrors) {
  const auto [style, file] = GetParam();
  const std::string good = ReadFile(testing::GoldenTokenizers() / style / file);
  const testing::TempDir directory;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing::GoldenTokenizers() / style)) {
    std::filesystem::copy(entry.path(), directory.path() / entry.path().filename());
  }
  std::mt19937 random(kSeed);
  int loaded = 0;
  for (int i = 0; i < kFiles; ++i) {
    testing::WriteText(directory / file, testing::Mutated(good, random));
    LoadAndUse(directory.path(), loaded);
  }
  EXPECT_LT(loaded, kFiles);
}

TEST_P(FileFuzz, WrongValuesAreErrors) {
  const auto [style, file] = GetParam();
  if (!std::string_view(file).ends_with("tokenizer.json")) return;
  const Json json = ReadJsonFile(testing::GoldenTokenizers() / style / file);
  const testing::TempDir directory;
  std::mt19937 random(kSeed);
  int loaded = 0;
  for (int i = 0; i < kFiles; ++i) {
    Json changed = json;
    testing::MutateValue(changed, random);
    testing::WriteText(directory / file, changed.dump());
    LoadAndUse(directory.path(), loaded);
  }
  EXPECT_GT(loaded, 0);
  EXPECT_LT(loaded, kFiles);
}

INSTANTIATE_TEST_SUITE_P(Files,
                         FileFuzz,
                         ::testing::Values(std::pair("llama2-style", "tokenizer.json"),
                                           std::pair("deepseek-style", "tokenizer.json"),
                                           std::pair("gpt2-style", "vocab.json"),
                                           std::pair("gpt2-style", "merges.txt"),
                                           std::pair("unigram-style", "tokenizer.json")));

TEST(FileFuzz, BrokenSentencePieceModelsAreErrors) {
  std::mt19937 random(kSeed);
  for (const char* name : {"bpe", "bpe-user", "bpe-plain", "unigram", "unigram-bytes"}) {
    const std::string file = "spm-" + std::string(name) + ".model";
    const std::string good = ReadFile(testing::GoldenTokenizers() / file);
    const testing::TempDir directory;
    int loaded = 0;
    for (int i = 0; i < kFiles; ++i) {
      testing::WriteText(directory / "tokenizer.model", testing::Mutated(good, random));
      LoadAndUse(directory.path(), loaded);
    }
    EXPECT_GT(loaded, 0);
    EXPECT_LT(loaded, kFiles);
  }
}

}  // namespace
}  // namespace kvc
