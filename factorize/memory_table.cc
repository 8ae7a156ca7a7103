#include "factorize/memory_table.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "core/io/json.h"
#include "factorize/layer_factors.h"

namespace kvc::factorize {
namespace {

// Returns the elements that one token caches of values; every layout keeps them whole.
int64_t ValueWidth(const ModelConfig& config) {
  return config.num_layers * config.num_kv_heads * config.head_width;
}

int64_t NormParameters(const ModelConfig& config) {
  return (config.norm == NormKind::kLayer ? 2 : 1) * config.model_width;
}

int64_t UsersOf(int64_t weight_bytes, int64_t cache_bytes) {
  return std::max<int64_t>(0, kTableDeviceBytes - weight_bytes) / cache_bytes;
}

LayoutRow MakeRow(const ModelConfig& config,
                  const std::string& name,
                  KeyLayout layout,
                  int64_t num_groups,
                  int64_t rank) {
  const std::vector<int64_t> ranks(num_groups, rank);
  return {name, rank, CostOfLayout(config, layout, ranks)};
}

// Returns the cost of one layer.
TokenCost CostOfLayer(const ModelConfig& config, KeyLayout layout, std::span<const int64_t> ranks) {
  const auto num_groups = static_cast<int64_t>(ranks.size());
  const bool latent = layout == KeyLayout::kLatent;
  TokenCost cost;
  for (const int64_t rank : ranks) {
    cost.key_bytes += kTableElementBytes * rank;
    if (latent) cost.rebuild_macs += rank * config.num_kv_heads / num_groups * config.head_width;
    cost.score_macs += config.num_heads / num_groups * (latent ? config.head_width : rank);
  }
  return cost;
}

}  // namespace

int64_t NumLayerParameters(const ModelConfig& config) {
  const int64_t E = config.model_width;
  const int64_t queries = config.num_heads * config.head_width;
  const int64_t keys = config.num_kv_heads * config.head_width;
  const int64_t projections = config.gated ? 3 : 2;  // of the MLP
  int64_t count = (2 * queries + 2 * keys) * E + projections * E * config.mlp_width;
  count += 2 * NormParameters(config);
  if (config.qkv_bias) count += queries + 2 * keys;
  if (config.out_bias) count += E;
  if (config.mlp_bias) count += (projections - 1) * config.mlp_width + E;
  if (config.qk_norm == QkNorm::kHead) count += 2 * config.head_width;
  if (config.qk_norm == QkNorm::kWhole) {
    count += (config.num_heads + config.num_kv_heads) * config.head_width;
  }
  return count;
}

int64_t NumParameters(const ModelConfig& config) {
  const int64_t E = config.model_width;
  int64_t count = config.vocab_size * E * (config.tied_embeddings ? 1 : 2);
  if (!config.has_rope) count += config.context_length * E;  // learned positions
  return count + NormParameters(config) + config.num_layers * NumLayerParameters(config);
}

MemoryTable MakeMemoryTable(const ModelConfig& config,
                            int64_t key_width,
                            std::span<const int64_t> lengths) {
  MemoryTable table;
  table.weight_bytes = kTableElementBytes * NumParameters(config);
  for (const int64_t tokens : lengths) {
    const int64_t full = tokens * kTableElementBytes * 2 * ValueWidth(config);
    const int64_t thin = tokens * kTableElementBytes * (key_width + ValueWidth(config));
    table.rows.push_back(
        {tokens, full, thin, UsersOf(table.weight_bytes, full), UsersOf(table.weight_bytes, thin)});
  }
  return table;
}

Json ToJson(const MemoryTable& table) {
  Json rows = Json::array();
  for (const MemoryRow& row : table.rows) {
    rows.push_back({{"tokens", row.tokens},
                    {"full_bytes", row.full_bytes},
                    {"thin_bytes", row.thin_bytes},
                    {"saved_bytes", row.full_bytes - row.thin_bytes},
                    {"users_full", row.users_full},
                    {"users_thin", row.users_thin},
                    {"users_ratio", row.UsersRatio()}});
  }
  return {{"element_bytes", kTableElementBytes},
          {"weight_bytes", table.weight_bytes},
          {"device_bytes", kTableDeviceBytes},
          {"lengths", std::move(rows)}};
}

TokenCost CostOfLayout(const ModelConfig& config,
                       KeyLayout layout,
                       std::span<const int64_t> ranks) {
  TokenCost cost = CostOfLayer(config, layout, ranks);
  for (int64_t* part : {&cost.key_bytes, &cost.rebuild_macs, &cost.score_macs}) {
    *part *= config.num_layers;
  }
  return cost;
}

TokenCost CostOfKeys(const ModelConfig& config, const KeyFactors& keys) {
  TokenCost cost;
  for (const auto& ranks : keys.ranks) {
    const TokenCost layer = CostOfLayer(config, keys.layout, ranks);
    cost.key_bytes += layer.key_bytes;
    cost.rebuild_macs += layer.rebuild_macs;
    cost.score_macs += layer.score_macs;
  }
  return cost;
}

Json DescribeCost(const TokenCost& cost) {
  return {{"key_bytes", cost.key_bytes},
          {"rebuild_macs", cost.rebuild_macs},
          {"score_macs", cost.score_macs}};
}

std::vector<LayoutRow> MakeLayoutTable(const ModelConfig& config,
                                       const RankRequest& rank,
                                       int64_t reference_width) {
  const int64_t D = config.head_width;
  const int64_t G = config.num_kv_heads;
  RankRequest share;
  share.share = rank.is_share
                    ? rank.share
                    : static_cast<double>(rank.dims) / static_cast<double>(reference_width);
  std::vector<LayoutRow> rows;
  rows.push_back(MakeRow(config, "full", KeyLayout::kFull, G, D));
  for (const KeyLayout layout : {KeyLayout::kAbsorb, KeyLayout::kPostRope, KeyLayout::kRopePairs}) {
    if (!LayoutObstacle(config, layout).empty()) continue;
    const int64_t head_rank = RankFor(share, D, layout);
    rows.push_back(MakeRow(config, std::string(KeyLayoutName(layout)), layout, G, head_rank));
  }
  if (!LayoutObstacle(config, KeyLayout::kLatent).empty()) return rows;
  for (int64_t n = 1; n <= G; ++n) {
    if (G % n != 0) continue;
    const int64_t group_rank = RankFor(share, G / n * D);
    rows.push_back(
        MakeRow(config, "latent:" + std::to_string(n), KeyLayout::kLatent, n, group_rank));
  }
  return rows;
}

Json ToJson(const LayoutRow& row) {
  Json json = {{"layout", row.layout}, {"rank", row.rank}};
  json.update(DescribeCost(row.cost));
  return json;
}

}  // namespace kvc::factorize
