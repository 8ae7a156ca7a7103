#pragma once
// The table of model families: one row of facts for each model_type of config.json. A new family
// is a row here, the names of its tensors where they differ (weight_layout.h), and a golden test;
// the model, the graph and the weights read the facts from ModelConfig and never ask for the
// family.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/io/json_fwd.h"

namespace kvc {

enum class Family { kGpt2, kLlama, kMistral, kQwen2, kQwen3, kSmolLm3, kStableLm, kOlmo2 };
// The model_type of config.json: "gpt2", "llama", ...
[[nodiscard]] std::string_view FamilyName(Family family);

// The norms over the model's width.
enum class NormKind {
  kRms,    // x / sqrt(mean(x^2) + epsilon) * weight
  kLayer,  // (x - mean) / sqrt(var + epsilon) * weight + bias
};
// Where a layer's two norms stand.
enum class NormPlace {
  kBefore,  // x + f(norm(x))
  kBehind,  // x + norm(f(x))
};
// An RMS norm of queries and keys before their rotation.
enum class QkNorm {
  kNone,
  kHead,   // of each head alone, weights [D]
  kWhole,  // of all heads together, weights [H*D] and [G*D]
};

// Where a linear map has a bias.
struct BiasRule {
  bool always = false;
  const char* key = nullptr;  // a boolean of config.json, false by default; null: there is none
};

// Defaults are those of the configuration class in transformers 5.
struct FamilyFacts {
  Family family = Family::kLlama;
  std::string_view name;  // model_type
  NormKind norm = NormKind::kRms;
  NormPlace norm_place = NormPlace::kBefore;
  QkNorm qk_norm = QkNorm::kNone;
  bool gated = true;  // the MLP is down(act(gate(x)) * up(x)), not down(act(up(x)))
  BiasRule qkv_bias = {};
  BiasRule out_bias = {};
  BiasRule mlp_bias = {};

  bool rotary = true;  // false: learned positions
  double theta = 10000.0;
  // True where partial_rotary_factor is heeded, and the share of a head's width that is rotated
  // where the key is absent.
  bool partial_rotary = false;
  double rotary_share = 1.0;
  bool unrotated_layers = false;  // no_rope_layers and no_rope_layer_interval are heeded

  bool tied = false;           // tie_word_embeddings
  int64_t context = 2048;      // max_position_embeddings
  int64_t num_kv_heads = 0;    // num_key_value_heads where the key is absent; 0: as many as heads
  int64_t head_width = 0;      // head_dim; 0: hidden_size / num_attention_heads
  double norm_epsilon = 1e-6;  // under the key norm_epsilon_key
  const char* norm_epsilon_key = "rms_norm_eps";
  const char* activation_key = "hidden_act";
  const char* activation = "silu";
};

[[nodiscard]] std::span<const FamilyFacts> Families();
[[nodiscard]] const FamilyFacts& FactsOf(Family family);
// The facts of config.json's model_type. Throws kUnsupported, naming the families, for another one.
[[nodiscard]] const FamilyFacts& ReadFamily(const Json& config, const std::string& origin);

}  // namespace kvc
