#pragma once
// The description of a decoder checkpoint: family, sizes, rotary embedding, and (for a thin
// checkpoint) how its keys are factored. It is read from a Hugging Face config.json, as
// transformers 4 and 5 write it.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/base/dtype.h"
#include "core/checkpoint/family.h"
#include "core/checkpoint/key_factors.h"
#include "core/checkpoint/rope.h"
#include "core/io/json_fwd.h"

namespace kvc {

enum class Activation { kGeluTanh, kGelu, kSilu };

// The facts of one layer's attention that may differ from its neighbours'.
struct LayerAttention {
  // The last tokens that a query sees, itself among them: token t sees t - window + 1 .. t. None:
  // every token before it.
  std::optional<int64_t> window;
  bool rotated = true;  // false: queries and keys are used without rotation
};

struct ModelConfig {
  Family family = Family::kLlama;
  int64_t num_layers = 0;    // L
  int64_t num_heads = 0;     // H
  int64_t num_kv_heads = 0;  // G
  int64_t head_width = 0;    // D of the ORIGINAL model; values always have this width
  int64_t model_width = 0;   // E
  int64_t mlp_width = 0;
  int64_t vocab_size = 0;
  int64_t context_length = 0;  // max_position_embeddings / n_positions
  NormKind norm = NormKind::kRms;
  NormPlace norm_place = NormPlace::kBefore;
  double norm_epsilon = 1e-5;
  bool gated = true;
  Activation activation = Activation::kSilu;
  bool has_rope = true;  // false: learned positions (GPT-2)
  RopeConfig rope;
  std::vector<LayerAttention> attention;  // [L]; empty: no layer has a window, all are rotated
  bool tied_embeddings = false;
  bool qkv_bias = false;
  bool out_bias = false;  // bias of the attention's output projection
  bool mlp_bias = false;
  QkNorm qk_norm = QkNorm::kNone;
  std::optional<DType> dtype;  // of the weights, as config.json claims; none: it does not say
  std::vector<int32_t> bos_ids;
  std::vector<int32_t> eos_ids;
  KeyFactors keys;
  // The whole config.json, to be written back with changes; null in a ModelConfig made by hand.
  std::shared_ptr<const Json> source;

  [[nodiscard]] int64_t group_size() const { return num_heads / num_kv_heads; }  // H/G
  [[nodiscard]] bool thin() const { return keys.layout != KeyLayout::kFull; }
  // The number of cached key streams in a layer: n for kLatent, else G.
  [[nodiscard]] int64_t num_key_groups() const;
  // The width of the key that group n of the layer caches: its rank, or D for kFull.
  [[nodiscard]] int64_t key_width(int64_t layer, int64_t group) const;
  // The window of a layer; none: its queries see every token before them.
  [[nodiscard]] std::optional<int64_t> window(int64_t layer) const;
  // True if some layer has a window.
  [[nodiscard]] bool has_windows() const;
  // True where a layer's queries and keys are rotated: never without rotary embedding.
  [[nodiscard]] bool rotated(int64_t layer) const;
  // The dimensions of a head that a rotated layer turns; 0 without rotary embedding.
  [[nodiscard]] int64_t rotary_width() const;
  // The logit scale, 1/sqrt(D) of the original width.
  [[nodiscard]] double logit_scale() const;
};

// Parses config.json, with transformers 5's precedence and defaults. Throws kUnsupported, naming
// the feature, for an unknown architecture, experts, an unknown type of layer or rope, or an
// unknown activation; kBadInput for sizes that do not divide or are missing.
[[nodiscard]] ModelConfig ParseModelConfig(const Json& config, const std::string& origin);
// Reads DIR/config.json and, for the end-of-sequence ids, DIR/generation_config.json if present.
[[nodiscard]] ModelConfig ReadModelConfig(const std::filesystem::path& directory);
}  // namespace kvc
