// The Python file beside a thin checkpoint. What it computes is tested by transformers_test.py.

#include "factorize/modeling_file.h"

#include <string>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize {
namespace {

TEST(ModelingFile, NamesTheFamilyAndNoPlaceIsLeft) {
  const std::pair<Family, const char*> kFamilies[] = {{Family::kGpt2, "GPT2LMHeadModel"},
                                                      {Family::kLlama, "LlamaForCausalLM"},
                                                      {Family::kMistral, "MistralForCausalLM"},
                                                      {Family::kQwen2, "Qwen2ForCausalLM"},
                                                      {Family::kQwen3, "Qwen3ForCausalLM"}};
  for (const auto& [family, base] : kFamilies) {
    const std::string text = ModelingText(family);
    EXPECT_NE(text.find("class KvcForCausalLM(family." + std::string(base) + ")"),
              std::string::npos);
    EXPECT_EQ(text.find("@MODULE"), std::string::npos);
    EXPECT_EQ(text.find("@CLASS"), std::string::npos);
  }
}

TEST(ModelingFile, StandsBesideTheConfigThatNamesIt) {
  const kvc::testing::TempDir dir;
  const auto golden =
      kvc::testing::SourceRoot() / "tests" / "golden" / "models" / "qwen2-rope-pairs";
  const ModelConfig config = ReadModelConfig(golden);
  WriteThinModel(config, config.keys, dir.path());
  EXPECT_EQ(ReadFile(dir.path() / "modeling_kvc.py"), ModelingText(Family::kQwen2));
  const ModelConfig again = ReadModelConfig(dir.path());
  EXPECT_EQ(again.family, Family::kQwen2);
  EXPECT_EQ(again.keys.pairs, config.keys.pairs);
  EXPECT_EQ(again.source->at("auto_map").at("AutoConfig"), "modeling_kvc.KvcConfig");
}

}  // namespace
}  // namespace kvc::factorize
