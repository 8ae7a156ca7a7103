#include "runtime/generator.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "tests/runtime/loaded.h"
#include "tests/support/expect_error.h"
#include "tests/support/word_tokenizer.h"

namespace kvc::runtime {
namespace {

class GeneratorTest : public ::testing::TestWithParam<LayoutCase> {
 protected:
  GenerateResult Run(const std::vector<std::vector<int32_t>>& prompts,
                     const GenerateOptions& options) {
    NoProgress progress;
    return Generate(*loaded_.session, prompts, options, progress);
  }

  Loaded loaded_{GetParam()};
};
INSTANTIATE_TEST_SUITE_P(Models,
                         GeneratorTest,
                         ::testing::ValuesIn(OnBackends(std::vector<std::string>{"gpt2"})),
                         LayoutName);

// What greedy decoding gives, by prefilling the whole text for every token.
TEST_P(GeneratorTest, GreedyIsTheArgmaxOfEachPrefill) {
  std::vector<int32_t> text = {3, 1, 4, 1, 5};
  GenerateOptions options;
  options.max_new_tokens = 12;
  const auto result = Run({text}, options);
  ASSERT_EQ(result.outputs.size(), 1U);
  ASSERT_EQ(result.outputs[0].ids.size(), 12U);
  for (const int32_t id : result.outputs[0].ids) {
    const auto sequence = loaded_.session->NewSequence({});
    const auto logits = testing::PrefillLast(*loaded_.session, *sequence, text);
    EXPECT_EQ(id, std::max_element(logits.begin(), logits.end()) - logits.begin());
    text.push_back(id);
  }
  EXPECT_FALSE(result.outputs[0].stopped);
  EXPECT_EQ(result.prefill_tokens, 5);
  EXPECT_EQ(result.decode_tokens, 11);
  EXPECT_EQ(result.outputs[0].cache.full_bytes / (5 + 11),
            OriginalBytesPerToken(loaded_.bundle->manifest().cache));
}

TEST_P(GeneratorTest, StopsAtAStopToken) {
  GenerateOptions options;
  options.max_new_tokens = 12;
  const auto free = Run({{3, 1, 4}}, options).outputs[0].ids;
  options.stop_ids = {free[6]};
  const auto stopped = Run({{3, 1, 4}}, options).outputs[0];
  const auto first = std::find(free.begin(), free.end(), free[6]);
  EXPECT_EQ(stopped.ids, std::vector<int32_t>(free.begin(), first));
  EXPECT_TRUE(stopped.stopped);
}

TEST_P(GeneratorTest, ABatchOfUnequalEnds) {
  GenerateOptions options;
  options.max_new_tokens = 10;
  const std::vector<std::vector<int32_t>> prompts = {{3, 1, 4}, {1}, {9, 2, 6, 5, 3, 5, 8, 9}};
  std::vector<std::vector<int32_t>> alone;
  for (const auto& prompt : prompts) alone.push_back(Run({prompt}, options).outputs[0].ids);
  options.stop_ids = {alone[1][4]};
  const auto together = Run(prompts, options);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto end = std::find(alone[i].begin(), alone[i].end(), alone[1][4]);
    EXPECT_EQ(together.outputs[i].ids, std::vector<int32_t>(alone[i].begin(), end)) << i;
  }
}

TEST_P(GeneratorTest, ASeedRepeatsAndSeedsDiffer) {
  GenerateOptions options;
  options.max_new_tokens = 20;
  options.sampling.temperature = 3.0;
  const auto one = Run({{3, 1, 4}}, options).outputs[0].ids;
  EXPECT_EQ(one, Run({{3, 1, 4}}, options).outputs[0].ids);
  options.seed += 1;
  EXPECT_NE(one, Run({{3, 1, 4}}, options).outputs[0].ids);
}

TEST_P(GeneratorTest, ErrorsNameThePromptOfABatch) {
  const int64_t context = loaded_.bundle->manifest().model.context_length;
  GenerateOptions options;
  const std::vector<int32_t> long_one(static_cast<size_t>(context + 1), 7);
  EXPECT_KVC_ERROR(Run({{1}, long_one}, options), kBadInput, "prompt 2: expected 1 to");
  EXPECT_KVC_ERROR(Run({long_one}, options), kBadInput, "prompt: expected 1 to");
  EXPECT_KVC_ERROR(Run({{1}, {2}, {1 << 20}}, options), kBadInput, "prompt 3: token 0");
}

class EndingTokenizer : public kvc::testing::WordTokenizer {
 public:
  std::optional<int32_t> eos_id() const override { return 95; }
};

// One rule for everything that generates: what the configuration, a generation_config.json of the
// bundle's own and the tokenizer name. A file that the manifest does not list says nothing.
TEST(StopIds, AreThoseOfTheBundle) {
  const Loaded loaded("qwen3");
  const std::filesystem::path& directory = loaded.directory.path();
  std::set<int32_t> expected(loaded.bundle->manifest().model.eos_ids.begin(),
                             loaded.bundle->manifest().model.eos_ids.end());
  expected.insert(95);
  const auto ids_of = [](const Bundle& bundle) {
    const std::vector<int32_t> ids = StopIds(bundle, EndingTokenizer());
    return std::set<int32_t>(ids.begin(), ids.end());
  };
  EXPECT_EQ(ids_of(*loaded.bundle), expected);
  std::ofstream(directory / "generation_config.json") << R"({"eos_token_id": [93, 94]})";
  EXPECT_EQ(ids_of(*Bundle::Load(directory, {})), expected);
  Manifest manifest = ReadManifest(directory);
  manifest.files["generation_config.json"] = {"", 26};
  WriteJsonFile(directory / "manifest.json", ToJson(manifest));
  expected.insert({93, 94});
  EXPECT_EQ(ids_of(*Bundle::Load(directory, {})), expected);
}

TEST_P(GeneratorTest, EndsWithTheContext) {
  const int64_t context = loaded_.bundle->manifest().model.context_length;
  GenerateOptions options;
  options.max_new_tokens = 1000;
  const auto output = Run({std::vector<int32_t>(static_cast<size_t>(context - 3), 7)}, options);
  // Three more tokens fit, and the last one's prediction needs no room.
  EXPECT_EQ(output.outputs[0].ids.size(), 4U);
  EXPECT_TRUE(output.outputs[0].cut);
  EXPECT_EQ(NewTokensWithin(context, context - 3, 1000), 4);
  options.max_new_tokens = 4;
  EXPECT_FALSE(
      Run({std::vector<int32_t>(static_cast<size_t>(context - 3), 7)}, options).outputs[0].cut);
  options.max_new_tokens = 0;
  EXPECT_KVC_ERROR(Run({{1}}, options), kUsage, "-n");
}

TEST_P(GeneratorTest, ACallerHearsEveryTokenAndMayHalt) {
  GenerateOptions options;
  options.max_new_tokens = 9;
  const std::vector<std::vector<int32_t>> prompts = {{3, 1, 4}, {1, 5}};
  const auto free = Run(prompts, options);
  std::vector<std::vector<int32_t>> heard(2);
  options.on_token = [&](size_t i, int32_t id) {
    heard[i].push_back(id);
    return i == 0 || heard[i].size() < 4;
  };
  const auto result = Run(prompts, options);
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(heard[i], result.outputs[i].ids);
    EXPECT_EQ(result.outputs[i].last, heard[i].back());
    EXPECT_FALSE(result.outputs[i].cut);
    EXPECT_EQ(result.outputs[i].halted, i == 1);
  }
  EXPECT_EQ(heard[0], free.outputs[0].ids);
  EXPECT_EQ(heard[1],
            std::vector<int32_t>(free.outputs[1].ids.begin(), free.outputs[1].ids.begin() + 4));
  // A stop token is not heard, and is the last one.
  heard.assign(2, {});
  options.stop_ids = {free.outputs[0].ids[3]};
  const auto stopped = Run({prompts[0]}, options).outputs[0];
  EXPECT_EQ(heard[0], stopped.ids);
  EXPECT_EQ(stopped.last, options.stop_ids[0]);
}

// Two turns on one sequence are one generation from all that was said.
TEST_P(GeneratorTest, TurnsContinueASequence) {
  NoProgress progress;
  GenerateOptions options;
  options.max_new_tokens = 6;
  const auto sequence = loaded_.session->NewSequence({});
  const std::vector<int32_t> first = {3, 1, 4, 1, 5};
  const auto one = Generate(*loaded_.session, *sequence, first, options, progress);
  EXPECT_EQ(one.outputs[0].ids, Run({first}, options).outputs[0].ids);
  EXPECT_EQ(sequence->length(), 10);
  const std::vector<int32_t> second = {one.outputs[0].last, 9, 2, 6};
  const auto two = Generate(*loaded_.session, *sequence, second, options, progress);
  std::vector<int32_t> all = first;
  all.insert(all.end(), one.outputs[0].ids.begin(), one.outputs[0].ids.end());
  all.insert(all.end(), second.begin() + 1, second.end());
  EXPECT_EQ(two.outputs[0].ids, Run({all}, options).outputs[0].ids);
  EXPECT_EQ(two.prefill_tokens, 4);
  EXPECT_EQ(two.outputs[0].cache.full_bytes,
            sequence->length() * OriginalBytesPerToken(loaded_.bundle->manifest().cache));
}

}  // namespace
}  // namespace kvc::runtime
