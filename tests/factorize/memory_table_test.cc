// The tables of --dry-run against the published arithmetic (32 layers, width 4096, 16 bits).

#include "factorize/memory_table.h"

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/json.h"
#include "factorize/factorize_model.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize {
namespace {

constexpr double kGB = 1e9;

Json SevenBillion(int64_t kv_heads, int64_t mlp_width) {
  return {{"architectures", {kv_heads == 32 ? "LlamaForCausalLM" : "MistralForCausalLM"}},
          {"model_type", kv_heads == 32 ? "llama" : "mistral"},
          {"hidden_size", 4096},
          {"intermediate_size", mlp_width},
          {"num_hidden_layers", 32},
          {"num_attention_heads", 32},
          {"num_key_value_heads", kv_heads},
          {"vocab_size", 32000},
          {"max_position_embeddings", 32768},
          {"rms_norm_eps", 1e-5},
          {"rope_theta", 10000.0},
          {"hidden_act", "silu"},
          {"sliding_window", nullptr},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"}};
}

Json Plan(const Json& config, const std::string& rank, std::vector<int64_t> lengths) {
  const kvc::testing::TempDir temp;
  WriteJsonFile(temp.path() / "config.json", config);  // no weights
  FactorizeOptions options;
  options.model = temp.path();
  options.rank = ParseRank(rank, "--rank");
  options.lengths = std::move(lengths);
  return ToJson(PlanFactorization(options));
}

const Json& Row(const Json& plan, const std::string& layout) {
  for (const Json& row : plan["layouts"]) {
    if (row["layout"] == layout) return row;
  }
  static const Json kNone;
  ADD_FAILURE() << layout << " is not in the table";
  return kNone;
}

// Two layers of different ranks are each counted with their own; equal ones give the layout's cost.
TEST(MemoryTable, CostOfSpreadRanks) {
  Json json = SevenBillion(8, 14336);
  json["num_hidden_layers"] = 2;
  const ModelConfig config = ParseModelConfig(json, "two layers");
  const TokenCost spread = CostOfKeys(config, {KeyLayout::kLatent, 2, {{8, 24}, {40, 56}}});
  EXPECT_EQ(spread.key_bytes, 2 * (8 + 24 + 40 + 56));
  EXPECT_EQ(spread.rebuild_macs, (8 + 24 + 40 + 56) * 4 * 128);  // 4 heads in a group
  EXPECT_EQ(spread.score_macs, 2 * 32 * 128);
  const TokenCost pairs = CostOfKeys(config, {KeyLayout::kRopePairs, 2, {{8, 24}, {40, 56}}});
  EXPECT_EQ(pairs.rebuild_macs, 0);
  EXPECT_EQ(pairs.score_macs, 16 * (8 + 24 + 40 + 56));
  const std::vector<int64_t> ranks = {48, 48};
  EXPECT_EQ(DescribeCost(CostOfKeys(config, {KeyLayout::kLatent, 2, {ranks, ranks}})),
            DescribeCost(CostOfLayout(config, KeyLayout::kLatent, ranks)));
}

TEST(MemoryTable, ParametersOfKnownModels) {
  EXPECT_EQ(NumParameters(ParseModelConfig(SevenBillion(8, 14336), "mistral")), 7241732096);
  EXPECT_EQ(NumParameters(ParseModelConfig(SevenBillion(32, 11008), "llama-2")), 6738415616);
}

// Thin Keys, section on memory: at 128,000 tokens keys and values take 33.55 GB each, a quarter of
// the keys saves 25.2 GB, half of them 16.8 GB; 67.2 / 42.0 = 1.6 times the users.
TEST(MemoryTable, ReproducesThePublishedArithmetic) {
  const Json quarter = Plan(SevenBillion(32, 11008), "25%", {128000, 1000000});
  const Json& rows = quarter["memory"]["lengths"];
  EXPECT_NEAR(rows[0]["full_bytes"].get<double>() / kGB, 67.1, 0.05);
  EXPECT_NEAR(rows[0]["saved_bytes"].get<double>() / kGB, 25.2, 0.05);
  EXPECT_DOUBLE_EQ(rows[0]["users_ratio"].get<double>(), 1.6);
  EXPECT_NEAR(rows[1]["full_bytes"].get<double>() / kGB, 524, 0.5);
  EXPECT_NEAR(rows[1]["thin_bytes"].get<double>() / kGB, 328, 0.5);
  const Json half = Plan(SevenBillion(32, 11008), "50%", {128000});
  EXPECT_NEAR(half["memory"]["lengths"][0]["saved_bytes"].get<double>() / kGB, 16.8, 0.05);
}

// At 4K: keys 268.4 MB, 67.1 MB at a quarter (Mistral's cache, eight kv heads). At 128K in GiB:
// full 16, thin 10.
TEST(MemoryTable, MistralsShape) {
  const Json plan = Plan(SevenBillion(8, 14336), "25%", {4096, 131072});
  const Json& rows = plan["memory"]["lengths"];
  EXPECT_EQ(rows[0]["full_bytes"].get<int64_t>(), 2 * 268435456);
  EXPECT_EQ(rows[0]["thin_bytes"].get<int64_t>(), 268435456 + 67108864);
  EXPECT_EQ(rows[1]["full_bytes"].get<int64_t>(), 16LL << 30);
  EXPECT_EQ(rows[1]["thin_bytes"].get<int64_t>(), 10LL << 30);
  const double left = 80e9 - 2.0 * 7241732096;
  EXPECT_EQ(rows[1]["users_full"].get<int64_t>(), static_cast<int64_t>(left / (16LL << 30)));
  EXPECT_EQ(rows[1]["users_thin"].get<int64_t>(), static_cast<int64_t>(left / (10LL << 30)));
}

TEST(MemoryTable, CostsOfTheLayouts) {
  const Json plan = Plan(SevenBillion(8, 14336), "25%", {4096});
  const int64_t full_bytes = 32 * 8 * 128 * 2;
  EXPECT_EQ(Row(plan, "full")["key_bytes"].get<int64_t>(), full_bytes);
  EXPECT_EQ(Row(plan, "full")["score_macs"].get<int64_t>(), 32 * 32 * 128);
  for (const char* layout : {"latent:1", "latent:2", "latent:8", "post-rope", "rope-pairs"}) {
    EXPECT_EQ(Row(plan, layout)["key_bytes"].get<int64_t>(), full_bytes / 4) << layout;
  }
  // one group of 256 columns rebuilds 8 heads of 128; eight groups of 32 rebuild one head each
  EXPECT_EQ(Row(plan, "latent:1")["rebuild_macs"].get<int64_t>(), 32 * 256 * 1024);
  EXPECT_EQ(Row(plan, "latent:8")["rebuild_macs"].get<int64_t>(), 32 * 8 * 32 * 128);
  EXPECT_EQ(Row(plan, "latent:8")["score_macs"].get<int64_t>(), 32 * 32 * 128);
  EXPECT_EQ(Row(plan, "post-rope")["rebuild_macs"].get<int64_t>(), 0);
  EXPECT_EQ(Row(plan, "post-rope")["score_macs"].get<int64_t>(), 32 * 32 * 32);
  EXPECT_EQ(plan["rebuild_macs_per_token"], Row(plan, "latent:1")["rebuild_macs"]);
}

// Dimensions of a group are the same share in every layout.
TEST(MemoryTable, RankInDimensions) {
  const Json plan = Plan(SevenBillion(8, 14336), "256", {4096});
  EXPECT_EQ(Row(plan, "latent:1")["rank"].get<int64_t>(), 256);
  EXPECT_EQ(Row(plan, "latent:4")["rank"].get<int64_t>(), 64);
  EXPECT_EQ(Row(plan, "post-rope")["rank"].get<int64_t>(), 32);
}

}  // namespace
}  // namespace kvc::factorize
