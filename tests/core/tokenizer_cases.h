#pragma once
// Golden token ids (tests/golden/make_tokenizer_golden.py) held against a tokenizer.

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/tokenizer/tokenizer.h"
#include "tests/support/paths.h"

namespace kvc::testing {

inline std::filesystem::path GoldenTokenizers() {
  return kvc::testing::SourceRoot() / "tests/golden/tokenizers";
}

// One for each family's way of writing tokenizer.json.
inline auto GoldenStyles() {
  return ::testing::Values("gpt2-style", "llama2-style", "llama3-style", "qwen-style",
                           "o200k-style", "deepseek-style");
}

struct GoldenStyle {
  Json golden;
  std::unique_ptr<Tokenizer> tokenizer;
};
inline GoldenStyle LoadGoldenStyle(const std::string& style) {
  Json golden = ReadJsonFile(GoldenTokenizers() / (style + ".json"));
  auto tokenizer = Tokenizer::Load(GoldenTokenizers() / golden.at("directory").get<std::string>());
  return {std::move(golden), std::move(tokenizer)};
}

// "llama3-style" as a name that GoogleTest takes.
inline std::string StyleName(const ::testing::TestParamInfo<const char*>& parameter) {
  std::string name = parameter.param;
  std::erase(name, '-');
  return name;
}

// Without WriteFile's care for power cuts, which costs a test of many small files seconds.
inline void WriteText(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary) << text;
}

// `cases`: [{"text", "ids", "decoded" (the text where absent), "with_special" (ids where absent)}]
inline void ExpectCases(const Tokenizer& tokenizer, const Json& cases) {
  ASSERT_TRUE(cases.is_array());
  ASSERT_FALSE(cases.empty());
  for (const Json& item : cases) {
    const auto text = item.at("text").get<std::string>();
    SCOPED_TRACE("text: " + item.at("text").dump(-1, ' ', true));
    const auto ids = item.at("ids").get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer.Encode(text, SpecialTokens::kNone), ids);
    EXPECT_EQ(tokenizer.Decode(ids), item.value("decoded", text));
    EXPECT_EQ(tokenizer.Encode(text, SpecialTokens::kAdd), item.value("with_special", ids));
  }
}

}  // namespace kvc::testing
