#pragma once
// Savings and costs of thin keys, from a configuration alone: cache bytes at several lengths,
// sequences that fit a device, and for each layout the bytes and multiply-adds of one cached token.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/sizes.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json_fwd.h"

namespace kvc::factorize {

// The table counts a 16-bit cache and 16-bit weights on a device of 80 GB.
inline constexpr int64_t kTableElementBytes = 2;
inline constexpr int64_t kTableDeviceBytes = 80'000'000'000;

// Returns the number of weights and biases of the source model, counting tied embeddings once.
[[nodiscard]] int64_t NumParameters(const ModelConfig& config);
// Returns those of one layer.
[[nodiscard]] int64_t NumLayerParameters(const ModelConfig& config);

// One row of the table, for one length.
struct MemoryRow {
  int64_t tokens = 0;
  int64_t full_bytes = 0;  // of the original's cache
  int64_t thin_bytes = 0;
  int64_t users_full = 0;  // whole sequences that fit beside the weights
  int64_t users_thin = 0;

  // Returns full_bytes / thin_bytes, the ratio of users for many of them.
  [[nodiscard]] double UsersRatio() const {
    return static_cast<double>(full_bytes) / static_cast<double>(thin_bytes);
  }
};
struct MemoryTable {
  int64_t weight_bytes = 0;  // of the source model
  std::vector<MemoryRow> rows;
};
// Returns the table. `key_width` is the width of the keys that one token caches, summed over layers
// and groups.
[[nodiscard]] MemoryTable MakeMemoryTable(const ModelConfig& config,
                                          int64_t key_width,
                                          std::span<const int64_t> lengths);
// Returns {"element_bytes", "weight_bytes", "device_bytes", "lengths": [{"tokens", "full_bytes",
// "thin_bytes", "saved_bytes", "users_full", "users_thin", "users_ratio"}]}.
[[nodiscard]] Json ToJson(const MemoryTable& table);

// Cost of one cached token in a decode step, summed over the layers.
struct TokenCost {
  int64_t key_bytes = 0;     // read, in a 16-bit cache
  int64_t rebuild_macs = 0;  // kLatent: R x D for each kv head of a group
  int64_t score_macs = 0;    // dot products with the queries: H x the width of a (rebuilt) key
};
// Returns the cost of a layout. `ranks` [n] are the widths of a layer's groups, the same in every
// layer.
[[nodiscard]] TokenCost CostOfLayout(const ModelConfig& config,
                                     KeyLayout layout,
                                     std::span<const int64_t> ranks);
// Returns the cost of keys whose ranks differ from layer to layer.
[[nodiscard]] TokenCost CostOfKeys(const ModelConfig& config, const KeyFactors& keys);
// Returns {"key_bytes", "rebuild_macs", "score_macs"}.
[[nodiscard]] Json DescribeCost(const TokenCost& cost);

// A layout at a share of the key bytes.
struct LayoutRow {
  std::string layout;  // "full", "absorb", "latent:N", ...
  int64_t rank = 0;    // of a group
  TokenCost cost;      // of one cached token, all layers
};
// Returns full keys, then every layout that the family can have, each at the same share of the key
// bytes (rounded as RankFor rounds). A rank in dimensions is converted to its share of
// `reference_width`, the width of the group that it was asked for.
[[nodiscard]] std::vector<LayoutRow> MakeLayoutTable(const ModelConfig& config,
                                                     const RankRequest& rank,
                                                     int64_t reference_width);
// Returns {"layout", "rank", "key_bytes", "rebuild_macs", "score_macs"}.
[[nodiscard]] Json ToJson(const LayoutRow& row);

}  // namespace kvc::factorize
