#pragma once
// Golden token ids (tests/golden/make_tokenizer_golden.py) held against a tokenizer.

#include <filesystem>
#include <fstream>
#include <string>
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
