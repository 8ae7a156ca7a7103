#pragma once
// What a decoder checkpoint is: family, sizes, rotary embedding, and (for a thin checkpoint) how
// its keys are factored. Read from a Hugging Face config.json as transformers 4 and 5 write it.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/io/json_fwd.h"

namespace kvc {

enum class Family { kGpt2, kLlama, kMistral, kQwen2, kQwen3 };
[[nodiscard]] std::string_view FamilyName(Family family);  // "gpt2", "llama", ...: model_type

enum class Activation { kGeluTanh, kGelu, kSilu };

// Rotary position embedding, half-split as Hugging Face stores it: dimension j is paired with
// j + D/2 and turned by position * inverse_frequency[j].
enum class RopeScaling { kNone, kLinear, kLlama3 };
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  int64_t original_context = 0;   // kLlama3
};

// Where the truncation of the keys stands (docs/formats/thin-checkpoint.md).
//   kFull      keys as the source model has them
//   kAbsorb    no rotation: k' = x A_g, q' = x Wq B_g, both R_g wide, scale 1/sqrt(D)
//   kLatent    n groups of heads: c = x A_n (cached), k_g = rope(norm(c B_g^T + bias_g))
//   kPostRope  k' = (k_g - mu_g) A_g, q' = q B_g after norm and rotation
//   kRopePairs whole rotation pairs (j, j + D/2) kept for each kv head and the queries that meet it
enum class KeyLayout { kFull, kAbsorb, kLatent, kPostRope, kRopePairs };
[[nodiscard]] std::string_view KeyLayoutName(KeyLayout layout);  // "full", "absorb", "latent", ...
[[nodiscard]] KeyLayout KeyLayoutFromName(std::string_view name);  // throws kBadInput
// Whether what is cached was cut behind the rotation (kPostRope, kRopePairs): a query that meets
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

struct ModelConfig {
  Family family = Family::kLlama;
  int64_t num_layers = 0;    // L
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G
  int64_t head_width = 0;    // D, of the ORIGINAL model; values always have it
  int64_t model_width = 0;   // E
  int64_t mlp_width = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // max_position_embeddings / n_positions
  double norm_epsilon = 1e-5;
  Activation activation = Activation::kSilu;
  bool has_rope = true;  // false: learned positions (GPT-2)
  RopeConfig rope;
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool out_bias = false;  // bias of the attention's output projection
  bool mlp_bias = false;
  bool qk_norm = false;       // Qwen3: RMS norm of each head's q and k before the rotation
  DType dtype = DType::kF32;  // of the stored weights, as config.json claims
  std::vector<int32_t> bos_ids;
  std::vector<int32_t> eos_ids;
  KeyFactors keys;
  // The whole config.json, to be written back with changes; null in a ModelConfig made by hand.
  std::shared_ptr<const Json> source;

  [[nodiscard]] int64_t group_size() const { return num_heads / num_kv_heads; }  // H/G
  [[nodiscard]] bool thin() const { return keys.layout != KeyLayout::kFull; }
  // Number of cached key streams in a layer: n for kLatent, else G.
  [[nodiscard]] int64_t num_key_groups() const;
  // Width of the key that group n of the layer caches: rank, or D for kFull.
  [[nodiscard]] int64_t key_width(int64_t layer, int64_t group) const;
  // Logit scale, 1/sqrt(D) of the original width.
  [[nodiscard]] double logit_scale() const;
};

// Throws kUnsupported, naming the feature: unknown architecture, sliding window in use, experts,
// unknown rope type, unknown activation; kBadInput for sizes that do not divide or are missing.
[[nodiscard]] ModelConfig ParseModelConfig(const Json& config, const std::string& origin);
// Reads DIR/config.json and, for the end-of-sequence ids, DIR/generation_config.json if present.
[[nodiscard]] ModelConfig ReadModelConfig(const std::filesystem::path& directory);
// Why the family cannot have keys of this layout, or "" when it can.
[[nodiscard]] std::string_view LayoutObstacle(const ModelConfig& config, KeyLayout layout);
// Names of the layouts that it can have, as --layout takes them: "latent:N, latent:heads, ...".
[[nodiscard]] std::string PossibleLayouts(const ModelConfig& config);
// config.json of a checkpoint whose keys are `keys`: the source's with the "kvc" block replaced.
[[nodiscard]] Json ConfigWithKeys(const ModelConfig& config, const KeyFactors& keys);

// [D/2] inverse frequencies with the scaling applied; double, then rounded by the user.
[[nodiscard]] std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                                         int64_t head_width);

}  // namespace kvc
