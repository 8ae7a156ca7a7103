#include "core/checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/error.h"
#include "core/base/size_limits.h"
#include "core/checkpoint/config_fields.h"
#include "core/checkpoint/windows.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<std::string_view, Activation>, 6> kActivations = {{
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu", Activation::kGelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
}};

// Sizes far beyond every model's. Below them no product of sizes with a length leaves 63 bits, and
// what is held for each layer and head stays small.
constexpr int64_t kMostLayers = 1 << 14;
constexpr double kMostHeads = 0x1p20;    // of all layers
constexpr double kMostWeights = 0x1p48;  // of all layers, were each matrix as wide as the widest

// Refuses features that would silently change the result if they were ignored.
void RefuseUnsupported(const Json& config, const std::string& origin) {
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    const Json* value = FindSet(config, key);
    KVC_CHECK(value == nullptr || (value->is_number() && value->get<double>() == 0.0), kUnsupported,
              "{}: {}: expected a dense model, got a mixture of experts", origin, key);
  }
  KVC_CHECK(FindSet(config, "quantization_config") == nullptr, kUnsupported,
            "{}: quantization_config: expected float weights, got quantized ones; use the "
            "unquantized checkpoint",
            origin);
  KVC_CHECK(!GetBool(config, "add_cross_attention", origin, false), kUnsupported,
            "{}: add_cross_attention: expected a decoder alone, got true", origin);
  for (const char* key : {"use_parallel_residual", "qk_layernorm"}) {  // StableLM
    KVC_CHECK(!GetBool(config, key, origin, false), kUnsupported,
              "{}: {}: expected false, got true", origin, key);
  }
}

Activation ParseActivation(const Json& config,
                           const char* key,
                           const std::string& fallback,
                           const std::string& origin) {
  const std::string text = GetString(config, key, origin, fallback);
  for (const auto& [name, activation] : kActivations) {
    if (name == text) {
      return activation;
    }
  }
  KVC_THROW(kUnsupported, "{}: {}: expected silu, gelu, gelu_new or gelu_pytorch_tanh, got \"{}\"",
            origin, key, text);
}

std::optional<DType> ParseWeightType(const Json& config, const std::string& origin) {
  // transformers 5 says "dtype", 4 says "torch_dtype".
  const char* key = FindSet(config, "dtype") != nullptr ? "dtype" : "torch_dtype";
  if (FindSet(config, key) == nullptr) return std::nullopt;
  std::string name = GetString(config, key, origin);
  if (name == "auto") return std::nullopt;  // that of the file
  if (name.starts_with("torch.")) {
    name = name.substr(6);
  }
  static constexpr std::array<std::pair<std::string_view, DType>, 4> kNames = {{
      {"float32", DType::kF32},
      {"float16", DType::kF16},
      {"bfloat16", DType::kBF16},
      {"float64", DType::kF64},
  }};
  for (const auto& [known, dtype] : kNames) {
    if (known == name) {
      return dtype;
    }
  }
  KVC_THROW(kUnsupported, "{}: {}: expected float32, float16 or bfloat16, got \"{}\"", origin, key,
            name);
}

// Reads one id, a list of ids, or null. Negative ids, which some write for "none", are left out.
std::vector<int32_t> ParseIds(const Json& config, const char* key, const std::string& origin) {
  std::vector<int32_t> ids;
  const Json* value = FindSet(config, key);
  if (value == nullptr) {
    return ids;
  }
  const auto add = [&](const Json& id) {
    constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
    const bool valid = id.is_number_integer() && id >= -kMost && id <= kMost;
    KVC_CHECK(valid, kBadInput, "{}: {}: expected token ids, got {}", origin, key,
              id.is_structured() ? "a nested value" : id.dump());
    if (id >= 0) ids.push_back(id.get<int32_t>());
  };
  if (value->is_array()) {
    for (const Json& id : *value) {
      add(id);
    }
  } else {
    add(*value);
  }
  return ids;
}

int64_t CheckLayers(int64_t layers, const std::string& origin) {
  KVC_CHECK(layers <= kMostLayers, kBadInput, "{}: expected at most {} layers, got {}", origin,
            kMostLayers, layers);
  return layers;
}

void CheckSizes(const ModelConfig& model, const std::string& origin) {
  const double heads = static_cast<double>(model.num_layers) * static_cast<double>(model.num_heads);
  const double queries = heads * static_cast<double>(model.head_width);
  const double widest =
      std::max({static_cast<double>(model.vocab_size), static_cast<double>(model.mlp_width),
                static_cast<double>(model.model_width),
                static_cast<double>(model.num_heads) * static_cast<double>(model.head_width)});
  const double weights =
      static_cast<double>(model.num_layers) * static_cast<double>(model.model_width) * widest;
  KVC_CHECK(heads <= kMostHeads && queries <= kMostQueryElements && weights <= kMostWeights,
            kBadInput,
            "{}: expected the sizes of a model, got {} layers of {} heads {} wide, model width {}, "
            "MLP width {} and {} tokens",
            origin, model.num_layers, model.num_heads, model.head_width, model.model_width,
            model.mlp_width, model.vocab_size);
}

// The biases, norms and defaults that the family's row and config.json decide together.
void ApplyFacts(const Json& config,
                const std::string& origin,
                const FamilyFacts& facts,
                ModelConfig& model) {
  const auto has_bias = [&](const BiasRule& rule) {
    return rule.always || (rule.key != nullptr && GetBool(config, rule.key, origin, false));
  };
  model.family = facts.family;
  model.norm = facts.norm;
  model.norm_place = facts.norm_place;
  model.qk_norm = facts.qk_norm;
  model.gated = facts.gated;
  model.qkv_bias = has_bias(facts.qkv_bias);
  model.out_bias = has_bias(facts.out_bias);
  model.mlp_bias = has_bias(facts.mlp_bias);
  model.has_rope = facts.rotary;
  model.tied_embeddings = GetBool(config, "tie_word_embeddings", origin, facts.tied);
  model.norm_epsilon = GetPositive(config, facts.norm_epsilon_key, origin, facts.norm_epsilon);
  model.activation = ParseActivation(config, facts.activation_key, facts.activation, origin);
}

// GPT-2's sizes have two names; the general one wins where both are given, as in transformers.
int64_t GetEither(const Json& config,
                  const char* general,
                  const char* own,
                  const std::string& origin) {
  return GetSize(config, FindSet(config, general) != nullptr ? general : own, origin);
}

void ParseGpt2(const Json& config,
               const std::string& origin,
               const FamilyFacts& facts,
               ModelConfig& model) {
  model.num_layers = CheckLayers(GetEither(config, "num_hidden_layers", "n_layer", origin), origin);
  model.num_heads = GetEither(config, "num_attention_heads", "n_head", origin);
  model.num_kv_heads = model.num_heads;
  model.model_width = GetEither(config, "hidden_size", "n_embd", origin);
  KVC_CHECK(model.model_width % model.num_heads == 0, kBadInput,
            "{}: expected n_embd to be a multiple of n_head, got {} and {}", origin,
            model.model_width, model.num_heads);
  model.head_width = model.model_width / model.num_heads;
  model.mlp_width = GetSize(config, "n_inner", origin, 4 * model.model_width);
  model.context_length = GetSize(config, "max_position_embeddings", origin,
                                 GetSize(config, "n_positions", origin, facts.context));
  KVC_CHECK(GetBool(config, "scale_attn_weights", origin, true), kUnsupported,
            "{}: scale_attn_weights: expected true, got false", origin);
  KVC_CHECK(!GetBool(config, "scale_attn_by_inverse_layer_idx", origin, false), kUnsupported,
            "{}: scale_attn_by_inverse_layer_idx: expected false, got true", origin);
}

// The width of a head, which follows from the other sizes in families that need not name it.
int64_t HeadWidth(const Json& config,
                  const ModelConfig& model,
                  const FamilyFacts& facts,
                  const std::string& origin) {
  if (FindSet(config, "head_dim") != nullptr) {
    return GetSize(config, "head_dim", origin);
  }
  if (facts.head_width > 0) return facts.head_width;
  KVC_CHECK(model.model_width % model.num_heads == 0, kBadInput,
            "{}: expected head_dim, or hidden_size to be a multiple of num_attention_heads, got {} "
            "and {}",
            origin, model.model_width, model.num_heads);
  return model.model_width / model.num_heads;
}

// Marks the layers whose queries and keys are not rotated: those with 0 in no_rope_layers; without
// that list every no_rope_layer_interval-th.
void ParseUnrotatedLayers(const Json& config, const std::string& origin, ModelConfig& model) {
  constexpr char kKey[] = "no_rope_layers";
  model.attention.resize(static_cast<size_t>(model.num_layers));
  if (FindSet(config, kKey) == nullptr) {
    const int64_t interval = GetSize(config, "no_rope_layer_interval", origin, 4);
    for (int64_t l = interval - 1; l < model.num_layers; l += interval) {
      model.attention[static_cast<size_t>(l)].rotated = false;
    }
    return;
  }
  const Json& flags = GetArray(config, kKey, origin);
  KVC_CHECK(std::ssize(flags) >= model.num_layers, kBadInput,
            "{}: {}: expected one entry for each of {} layers, got {}", origin, kKey,
            model.num_layers, flags.size());
  for (size_t l = 0; l < model.attention.size(); ++l) {
    const Json& flag = flags[l];
    KVC_CHECK(flag.is_boolean() || flag == 0 || flag == 1, kBadInput,
              "{}: {}: expected 0 or 1 for layer {}, got {}", origin, kKey, l,
              flag.is_structured() ? "a nested value" : flag.dump());
    model.attention[l].rotated = flag == 1 || flag == true;
  }
}

void ParseLlamaLike(const Json& config,
                    const std::string& origin,
                    const FamilyFacts& facts,
                    ModelConfig& model) {
  model.num_layers = CheckLayers(GetSize(config, "num_hidden_layers", origin), origin);
  model.num_heads = GetSize(config, "num_attention_heads", origin);
  model.model_width = GetSize(config, "hidden_size", origin);
  // Absent and null differ.
  const bool named = config.contains("num_key_value_heads") || facts.num_kv_heads == 0;
  model.num_kv_heads =
      GetSize(config, "num_key_value_heads", origin, named ? model.num_heads : facts.num_kv_heads);
  KVC_CHECK(
      model.num_heads % model.num_kv_heads == 0, kBadInput,
      "{}: expected num_attention_heads to be a multiple of num_key_value_heads, got {} and {}{}",
      origin, model.num_heads, model.num_kv_heads, named ? "" : ", the default");
  model.head_width = HeadWidth(config, model, facts, origin);
  KVC_CHECK(model.head_width % 2 == 0, kBadInput,
            "{}: head_dim: expected an even width for the rotation, got {}", origin,
            model.head_width);
  model.mlp_width = GetSize(config, "intermediate_size", origin);
  model.context_length = GetSize(config, "max_position_embeddings", origin, facts.context);
  model.rope = ParseRope(config, origin, facts, {model.head_width, model.context_length});
  if (facts.unrotated_layers) ParseUnrotatedLayers(config, origin, model);
  ParseWindows(config, origin, model);
}

}  // namespace

int64_t ModelConfig::num_key_groups() const {
  return keys.layout == KeyLayout::kLatent ? keys.num_groups : num_kv_heads;
}

int64_t ModelConfig::key_width(int64_t layer, int64_t group) const {
  if (!thin()) {
    return head_width;
  }
  return keys.ranks.at(static_cast<size_t>(layer)).at(static_cast<size_t>(group));
}

std::optional<int64_t> ModelConfig::window(int64_t layer) const {
  return attention.empty() ? std::nullopt : attention[static_cast<size_t>(layer)].window;
}

bool ModelConfig::has_windows() const {
  return std::ranges::any_of(attention,
                             [](const LayerAttention& own) { return own.window.has_value(); });
}

bool ModelConfig::rotated(int64_t layer) const {
  return has_rope && (attention.empty() || attention[static_cast<size_t>(layer)].rotated);
}

int64_t ModelConfig::rotary_width() const { return has_rope ? RotaryWidth(rope, head_width) : 0; }

double ModelConfig::logit_scale() const { return 1.0 / std::sqrt(static_cast<double>(head_width)); }

ModelConfig ParseModelConfig(const Json& config, const std::string& origin) {
  KVC_CHECK(config.is_object(), kBadInput, "{}: expected an object, got {}", origin,
            config.type_name());
  ModelConfig model;
  const FamilyFacts& facts = ReadFamily(config, origin);
  RefuseUnsupported(config, origin);
  ApplyFacts(config, origin, facts, model);
  if (facts.rotary) {
    ParseLlamaLike(config, origin, facts, model);
  } else {
    ParseGpt2(config, origin, facts, model);
  }
  model.vocab_size = GetSize(config, "vocab_size", origin);
  CheckSizes(model, origin);
  model.dtype = ParseWeightType(config, origin);
  model.bos_ids = ParseIds(config, "bos_token_id", origin);
  model.eos_ids = ParseIds(config, "eos_token_id", origin);
  model.keys = ParseKeys(config, model, origin);
  model.source = std::make_shared<const Json>(config);
  return model;
}

ModelConfig ReadModelConfig(const std::filesystem::path& directory) {
  const std::filesystem::path path = directory / "config.json";
  ModelConfig model = ParseModelConfig(ReadJsonFile(path), path.string());
  const std::filesystem::path generation = directory / "generation_config.json";
  std::error_code error;
  if (std::filesystem::exists(generation, error)) {
    const Json json = ReadJsonFile(generation);
    KVC_CHECK(json.is_object(), kBadInput, "{}: expected an object, got {}", generation.string(),
              json.type_name());
    // generate() stops at these ids, where the file names any.
    const std::vector<int32_t> ids = ParseIds(json, "eos_token_id", generation.string());
    if (!ids.empty()) {
      model.eos_ids = ids;
    }
  }
  return model;
}

}  // namespace kvc
