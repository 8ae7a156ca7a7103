#include "core/checkpoint/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "core/base/enum_names.h"
#include "core/base/error.h"
#include "core/checkpoint/config_fields.h"
#include "core/checkpoint/windows.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<Family, std::string_view>, 5> kFamilies = {{
    {Family::kGpt2, "gpt2"},
    {Family::kLlama, "llama"},
    {Family::kMistral, "mistral"},
    {Family::kQwen2, "qwen2"},
    {Family::kQwen3, "qwen3"},
}};

constexpr std::array<std::pair<std::string_view, Activation>, 6> kActivations = {{
    {"gelu_new", Activation::kGeluTanh},
    {"gelu_pytorch_tanh", Activation::kGeluTanh},
    {"gelu_fast", Activation::kGeluTanh},
    {"gelu", Activation::kGelu},
    {"silu", Activation::kSilu},
    {"swish", Activation::kSilu},
}};

Family ParseFamily(const Json& config, const std::string& origin) {
  const std::string type = GetString(config, "model_type", origin);
  for (const auto& [family, name] : kFamilies) {
    if (name == type) {
      return family;
    }
  }
  KVC_THROW(kUnsupported,
            "{}: expected model_type gpt2, llama, mistral, qwen2 or qwen3, got \"{}\"; kvc does "
            "not have this architecture",
            origin, type);
}

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
  KVC_CHECK(GetDouble(config, "partial_rotary_factor", origin, 1.0) == 1.0, kUnsupported,
            "{}: partial_rotary_factor: expected 1, got another share", origin);
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

// Reads one id, a list of ids, or null.
std::vector<int32_t> ParseIds(const Json& config, const char* key, const std::string& origin) {
  std::vector<int32_t> ids;
  const Json* value = FindSet(config, key);
  if (value == nullptr) {
    return ids;
  }
  const auto add = [&](const Json& id) {
    const bool valid = id.is_number_integer() && id.get<int64_t>() >= 0 &&
                       id.get<int64_t>() <= std::numeric_limits<int32_t>::max();
    KVC_CHECK(valid, kBadInput, "{}: {}: expected token ids, got {}", origin, key,
              id.is_structured() ? "a nested value" : id.dump());
    ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
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

void ParseGpt2(const Json& config, const std::string& origin, ModelConfig& model) {
  model.num_layers = GetSize(config, "n_layer", origin);
  model.num_heads = GetSize(config, "n_head", origin);
  model.num_kv_heads = model.num_heads;
  model.model_width = GetSize(config, "n_embd", origin);
  KVC_CHECK(model.model_width % model.num_heads == 0, kBadInput,
            "{}: expected n_embd to be a multiple of n_head, got {} and {}", origin,
            model.model_width, model.num_heads);
  model.head_width = model.model_width / model.num_heads;
  model.mlp_width = GetSize(config, "n_inner", origin, 4 * model.model_width);
  model.context_length = GetSize(config, "n_positions", origin);
  model.norm_epsilon = GetPositive(config, "layer_norm_epsilon", origin, 1e-5);
  model.activation = ParseActivation(config, "activation_function", "gelu_new", origin);
  model.has_rope = false;
  model.qkv_bias = model.out_bias = model.mlp_bias = true;
  model.tied_embeddings = GetBool(config, "tie_word_embeddings", origin, true);
  KVC_CHECK(GetBool(config, "scale_attn_weights", origin, true), kUnsupported,
            "{}: scale_attn_weights: expected true, got false", origin);
  KVC_CHECK(!GetBool(config, "scale_attn_by_inverse_layer_idx", origin, false), kUnsupported,
            "{}: scale_attn_by_inverse_layer_idx: expected false, got true", origin);
}

// The number of kv heads. Only Llama's config need not name it.
int64_t KvHeads(const Json& config, const ModelConfig& model, const std::string& origin) {
  const bool must_be_named =
      model.family != Family::kLlama && !config.contains("num_key_value_heads");
  KVC_CHECK(!must_be_named, kBadInput, "{}: expected the key \"num_key_value_heads\", got none",
            origin);
  return GetSize(config, "num_key_value_heads", origin, model.num_heads);
}

// The width of a head, which follows from the other sizes in families that need not name it.
int64_t HeadWidth(const Json& config, const ModelConfig& model, const std::string& origin) {
  if (FindSet(config, "head_dim") != nullptr) {
    return GetSize(config, "head_dim", origin);
  }
  if (model.family == Family::kQwen3) {
    return 128;  // Qwen3Config's default, whatever the model's width
  }
  KVC_CHECK(model.model_width % model.num_heads == 0, kBadInput,
            "{}: expected head_dim, or hidden_size to be a multiple of num_attention_heads, got {} "
            "and {}",
            origin, model.model_width, model.num_heads);
  return model.model_width / model.num_heads;
}

void ParseLlamaLike(const Json& config, const std::string& origin, ModelConfig& model) {
  model.num_layers = GetSize(config, "num_hidden_layers", origin);
  model.num_heads = GetSize(config, "num_attention_heads", origin);
  model.model_width = GetSize(config, "hidden_size", origin);
  model.num_kv_heads = KvHeads(config, model, origin);
  KVC_CHECK(
      model.num_heads % model.num_kv_heads == 0, kBadInput,
      "{}: expected num_attention_heads to be a multiple of num_key_value_heads, got {} and {}",
      origin, model.num_heads, model.num_kv_heads);
  model.head_width = HeadWidth(config, model, origin);
  KVC_CHECK(model.head_width % 2 == 0, kBadInput,
            "{}: head_dim: expected an even width for the rotation, got {}", origin,
            model.head_width);
  model.mlp_width = GetSize(config, "intermediate_size", origin);
  model.context_length = GetSize(config, "max_position_embeddings", origin);
  model.norm_epsilon = GetPositive(config, "rms_norm_eps", origin, 1e-6);
  model.activation = ParseActivation(config, "hidden_act", "silu", origin);
  model.rope = ParseRope(config, origin);
  model.tied_embeddings = GetBool(config, "tie_word_embeddings", origin, false);
  const bool attention_bias = GetBool(config, "attention_bias", origin, false);
  const bool reads_bias = model.family == Family::kLlama || model.family == Family::kQwen3;
  model.out_bias = reads_bias && attention_bias;
  model.qkv_bias = model.out_bias || model.family == Family::kQwen2;
  model.mlp_bias = model.family == Family::kLlama && GetBool(config, "mlp_bias", origin, false);
  model.qk_norm = model.family == Family::kQwen3;
  ParseWindows(config, origin, model);
}

}  // namespace

std::string_view FamilyName(Family family) { return EnumName(kFamilies, family); }

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

bool ModelConfig::rotated(int64_t layer) const {
  return has_rope && (attention.empty() || attention[static_cast<size_t>(layer)].rotated);
}

double ModelConfig::logit_scale() const { return 1.0 / std::sqrt(static_cast<double>(head_width)); }

ModelConfig ParseModelConfig(const Json& config, const std::string& origin) {
  KVC_CHECK(config.is_object(), kBadInput, "{}: expected an object, got {}", origin,
            config.type_name());
  ModelConfig model;
  model.family = ParseFamily(config, origin);
  RefuseUnsupported(config, origin);
  if (model.family == Family::kGpt2) {
    ParseGpt2(config, origin, model);
  } else {
    ParseLlamaLike(config, origin, model);
  }
  model.vocab_size = GetSize(config, "vocab_size", origin);
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
