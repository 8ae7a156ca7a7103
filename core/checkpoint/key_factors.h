#pragma once
// How the keys of a checkpoint are factored: the layout of a thin checkpoint and its ranks, the
// "kvc" block of its config.json (docs/formats/thin-checkpoint.md).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc {

struct ModelConfig;  // core/checkpoint/model_config.h, which has a KeyFactors

// The place at which the keys are cut.
//   kFull      keys as the source model has them
//   kAbsorb    no rotation: k' = x A_g, q' = x Wq B_g, both R_g wide, scale 1/sqrt(D)
//   kLatent    n groups of heads: c = x A_n (cached), k_g = rope(norm(c B_g^T + bias_g))
//   kPostRope  k' = (k_g - mu_g) A_g, q' = q B_g after norm and rotation
//   kRopePairs whole rotation pairs (j, j + D/2) kept for each kv head and the queries that meet it
enum class KeyLayout { kFull, kAbsorb, kLatent, kPostRope, kRopePairs };
[[nodiscard]] std::string_view KeyLayoutName(KeyLayout layout);  // "full", "absorb", "latent", ...
// Throws kBadInput for an unknown name.
[[nodiscard]] KeyLayout KeyLayoutFromName(std::string_view name);
// True when the cached keys are cut after the rotation (kPostRope, kRopePairs): a query that meets
// such keys cannot be turned to another position.
[[nodiscard]] bool KeysBehindRotation(KeyLayout layout);

// The "kvc" block of a thin checkpoint's config.json.
struct KeyFactors {
  KeyLayout layout = KeyLayout::kFull;
  int64_t num_groups = 0;                   // n; G for every layout but kLatent
  std::vector<std::vector<int64_t>> ranks;  // [L][n] width of each group's cached key
  // kRopePairs: [L][G] of [R/2]: rotation pairs j in 0..D/2-1 in the order in which they are stored
  std::vector<std::vector<std::vector<int64_t>>> pairs = {};
};

// Reads the "kvc" block and checks it against the model's sizes; keys are full where there is none.
// Throws kBadInput, and kUnsupported for the format of a newer kvc.
[[nodiscard]] KeyFactors ParseKeys(const Json& config,
                                   const ModelConfig& model,
                                   const std::string& origin);
// The config.json of a checkpoint whose keys are `keys`: the source's with the "kvc" block and what
// belongs to it (model_type, architectures, auto_map) replaced.
[[nodiscard]] Json ConfigWithKeys(const ModelConfig& config, const KeyFactors& keys);

// The reason why the model cannot have keys of this layout; "" when it can.
[[nodiscard]] std::string_view LayoutObstacle(const ModelConfig& config, KeyLayout layout);
// The names of the layouts that the model can have, as --layout takes them: "latent:N,
// latent:heads, ...".
[[nodiscard]] std::string PossibleLayouts(const ModelConfig& config);

}  // namespace kvc
