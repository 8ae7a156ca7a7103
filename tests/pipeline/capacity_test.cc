#include "pipeline/capacity/capacity.h"

#include <filesystem>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/base/thread_pool.h"
#include "core/cache/manifest.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "pipeline/capacity/capacity_text.h"
#include "runtime/bundle.h"
#include "runtime/memory_need.h"
#include "tests/runtime/test_bundles.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden_names.h"
#include "tests/support/temp_dir.h"

namespace kvc::capacity {
namespace {

namespace fs = std::filesystem;
using testing::GoldenModel;

// A directory with nothing but the config.json of a golden model.
fs::path ConfigAlone(const std::string& name, const testing::TempDir& directory) {
  fs::copy_file(GoldenModel(name) / "config.json", directory.path() / "config.json");
  return directory.path();
}

std::vector<int32_t> RandomIds(int64_t count, int64_t vocabulary) {
  Rng rng(7);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<int32_t>(rng.NextBelow(vocabulary)));
  }
  return ids;
}

class CapacityOfGolden : public ::testing::TestWithParam<std::string> {};

// Every budget: planned from config.json alone, then run.
TEST_P(CapacityOfGolden, IsWhatARunAllocates) {
  const testing::TempDir config_directory;
  const testing::TempDir bundle_directory;
  testing::WriteBundle(GoldenModel(GetParam()), bundle_directory.path());
  ThreadPool pool(1);
  const auto bundle = runtime::Bundle::Load(bundle_directory.path(), {}, pool);
  const auto session = runtime::Session::Create(bundle, pool);
  CapacityRequest request;
  request.context = std::min<int64_t>(session->context_length(), 90);
  request.budgets = {"100%", "90%"};
  request.policy.scorer = ScorerSpec(ScorerKind::kKnorm);  // a ring would outweigh so few tokens
  request.sinks = 1;
  request.window = 4;
  StorageOptions storage;
  storage.weights_dtype = DType::kF32;
  const Capacity plan =
      PlanCapacity(ReadCapacityModel(ConfigAlone(GetParam(), config_directory), storage), request);
  const auto ids = RandomIds(request.context, bundle->manifest().model.vocab_size);
  ASSERT_EQ(plan.lines.size(), 2U);
  for (const CapacityLine& line : plan.lines) {
    ASSERT_EQ(line.infeasible, "");
    runtime::SequenceOptions options;
    options.cache = line.spec;
    options.cache->original_dtype = bundle->manifest().cache.original_dtype;
    const auto sequence = session->NewSequence(options);
    (void)testing::PrefillLast(*session, *sequence, ids);
    const runtime::CacheCounters counters = sequence->counters();
    EXPECT_EQ(counters.allocated_bytes, line.bytes.allocated) << line.budget;
    EXPECT_EQ(counters.logical_bytes, line.bytes.logical) << line.budget;
    EXPECT_LE(counters.peak_bytes, line.peak_cache_bytes) << line.budget;
    // The runtime's own count of a prompt's bytes, which knows the plan's slots.
    const runtime::PromptCache cache{&line.spec, request.context, 4, false};
    const auto need = static_cast<double>(
        runtime::PromptBytes(bundle->plan(), std::span(&cache, 1), request.context, 90, 1));
    EXPECT_GT(static_cast<double>(line.peak_prefill_bytes), 0.7 * need);
    EXPECT_LT(static_cast<double>(line.peak_prefill_bytes), 1.5 * need);
  }
}

INSTANTIATE_TEST_SUITE_P(Models,
                         CapacityOfGolden,
                         ::testing::Values("gpt2",
                                           "llama",
                                           "qwen3",
                                           "mistral-window",
                                           "llama-latent",
                                           "qwen3-post-rope",
                                           "mistral-rope-pairs",
                                           "mistral-window-latent"),
                         testing::ParameterName());

TEST(CapacityModel, CountsTheWeightsOfTheBundle) {
  for (const std::string name : {"gpt2", "llama", "llama-bias", "qwen2", "qwen3", "mistral"}) {
    const testing::TempDir directory;
    const testing::TempDir bundle;
    testing::WriteBundle(GoldenModel(name), bundle.path());
    StorageOptions storage;
    storage.weights_dtype = DType::kF32;
    const CapacityModel model = ReadCapacityModel(ConfigAlone(name, directory), storage);
    const auto stored = static_cast<int64_t>(fs::file_size(bundle.path() / "model.onnx.data"));
    EXPECT_LE(model.weight_bytes, stored) << name;
    // Every weight begins at a multiple of 4096.
    EXPECT_GT(model.weight_bytes, stored - int64_t{4096} * 20 * (model.config.num_layers + 1))
        << name;
    EXPECT_LE(model.step_weight_bytes, model.weight_bytes);
  }
}

// A 7B model of the Mistral shape: every number by hand.
CapacityModel Mistral7B(const testing::TempDir& directory) {
  WriteFile(directory.path() / "config.json", R"({
    "architectures": ["MistralForCausalLM"], "model_type": "mistral", "torch_dtype": "bfloat16",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32768,
    "max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 1000000.0,
    "sliding_window": null, "hidden_act": "silu", "tie_word_embeddings": false})");
  return ReadCapacityModel(directory.path(), {});
}

TEST(Capacity, OfAKnownModelAddsUp) {
  const testing::TempDir directory;
  CapacityRequest request;
  request.context = 32768;
  request.batch = 8;
  request.budgets = {"100%", "25%", "0.1%"};
  request.memory = int64_t{80} << 30;
  request.bandwidth = 3.35e12;
  const Capacity plan = PlanCapacity(Mistral7B(directory), request);
  const int64_t layer = int64_t{4096} * (4096 + 1024 + 1024 + 4096) + int64_t{3} * 4096 * 14336;
  const int64_t norms = int64_t{2 * 32 + 1} * 4096;
  const int64_t table = int64_t{32768} * 4096;
  EXPECT_EQ(plan.model.weight_bytes, 2 * (32 * layer + 2 * table) + 4 * norms);
  EXPECT_EQ(plan.model.step_weight_bytes, plan.model.weight_bytes - 2 * table);
  const CapacityLine& full = plan.lines[0];
  const int64_t cache = int64_t{2} * 32 * 8 * 128 * 2 * 32768;  // 4 GiB
  EXPECT_EQ(full.bytes.full, cache);
  EXPECT_EQ(full.bytes.allocated, cache);
  EXPECT_EQ(full.peak_cache_bytes, cache);
  const int64_t passing = full.peak_prefill_bytes - cache;
  EXPECT_EQ(*full.sequences, (*request.memory - plan.model.weight_bytes - passing) / cache);
  const double read =
      static_cast<double>(plan.model.step_weight_bytes) + 8.0 * static_cast<double>(cache);
  EXPECT_DOUBLE_EQ(*full.tokens_per_second, 8.0 * 3.35e12 / read);
  const CapacityLine& quarter = plan.lines[1];
  EXPECT_LE(quarter.bytes.allocated, cache / 4);
  EXPECT_GT(quarter.bytes.allocated, cache / 5);
  // One layer's working blocks beside what the layers in front have kept.
  EXPECT_GT(quarter.peak_cache_bytes, quarter.bytes.allocated);
  EXPECT_LT(quarter.peak_cache_bytes, quarter.bytes.allocated + cache / 32 + (1 << 20));
  EXPECT_GT(*quarter.sequences, 3 * *full.sequences);
  EXPECT_NE(plan.lines[2].infeasible.find("--budget"), std::string::npos);
}

TEST(Capacity, TextHasARowForEachBudget) {
  const testing::TempDir directory;
  CapacityRequest request;
  request.context = 32768;
  request.budgets = {"100%", "25%", "0.1%"};
  request.memory = int64_t{80} << 30;
  const std::string text = CapacityText(PlanCapacity(Mistral7B(directory), request));
  EXPECT_NE(text.find("128.0 KiB"), std::string::npos) << text;
  EXPECT_NE(text.find("fit into 80.0 GiB"), std::string::npos) << text;
  EXPECT_NE(text.find("expected at least"), std::string::npos) << text;
}

TEST(Capacity, OfABundleBeginsWithItsOwnCache) {
  const testing::TempDir directory;
  testing::WriteBundle(GoldenModel("llama"), directory.path());
  CapacityRequest request;
  request.budgets = {"100%"};
  const Capacity plan = PlanCapacity(ReadCapacityModel(directory.path(), {}), request);
  ASSERT_EQ(plan.lines.size(), 2U);
  EXPECT_EQ(plan.lines[0].budget, "100% (exported)");
  EXPECT_EQ(plan.lines[0].bytes.allocated, plan.lines[1].bytes.allocated);
  EXPECT_EQ(plan.context, plan.model.config.context_length);
  StorageOptions storage;
  storage.weights_dtype = DType::kBF16;
  EXPECT_KVC_ERROR((void)ReadCapacityModel(directory.path(), storage), kUsage, "--dtype");
}

TEST(Capacity, RefusesWhatTheModelHasNot) {
  const testing::TempDir directory;
  CapacityRequest request;
  request.context = 65536;
  EXPECT_KVC_ERROR((void)PlanCapacity(Mistral7B(directory), request), kUsage, "32768 tokens");
  request.context = 4096;
  request.batch = 0;
  EXPECT_KVC_ERROR((void)PlanCapacity(Mistral7B(directory), request), kUsage, "--batch");
  request.batch = 1;
  request.policy.method = Method::kLuKv;
  EXPECT_KVC_ERROR((void)PlanCapacity(Mistral7B(directory), request), kUsage, "profile");
  EXPECT_KVC_ERROR((void)ReadCapacityModel(directory.path() / "none", {}), kIo, "none");
}

}  // namespace
}  // namespace kvc::capacity
