#include "core/checkpoint/family.h"

#include <array>

#include "core/base/error.h"
#include "core/checkpoint/thin_names.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr BiasRule kAlways = {.always = true};
constexpr BiasRule kAttentionBias = {.key = "attention_bias"};
constexpr BiasRule kMlpBias = {.key = "mlp_bias"};

constexpr std::array<FamilyFacts, 8> kFamilies = {{
    {.family = Family::kGpt2,
     .name = "gpt2",
     .norm = NormKind::kLayer,
     .gated = false,
     .qkv_bias = kAlways,
     .out_bias = kAlways,
     .mlp_bias = kAlways,
     .rotary = false,
     .tied = true,
     .context = 1024,
     .norm_epsilon = 1e-5,
     .norm_epsilon_key = "layer_norm_epsilon",
     .activation_key = "activation_function",
     .activation = "gelu_new"},
    {.family = Family::kLlama,
     .name = "llama",
     .qkv_bias = kAttentionBias,
     .out_bias = kAttentionBias,
     .mlp_bias = kMlpBias},
    {.family = Family::kMistral, .name = "mistral", .context = 131072, .num_kv_heads = 8},
    {.family = Family::kQwen2,
     .name = "qwen2",
     .qkv_bias = kAlways,
     .context = 32768,
     .num_kv_heads = 32},
    {.family = Family::kQwen3,
     .name = "qwen3",
     .qk_norm = QkNorm::kHead,
     .qkv_bias = kAttentionBias,
     .out_bias = kAttentionBias,
     .context = 32768,
     .num_kv_heads = 32,
     .head_width = 128},
    {.family = Family::kSmolLm3,
     .name = "smollm3",
     .qkv_bias = kAttentionBias,
     .out_bias = kAttentionBias,
     .mlp_bias = kMlpBias,
     .theta = 2000000.0,
     .unrotated_layers = true,
     .tied = true,
     .context = 32768,
     .num_kv_heads = 4},
    {.family = Family::kStableLm,
     .name = "stablelm",
     .norm = NormKind::kLayer,
     .qkv_bias = {.key = "use_qkv_bias"},
     .partial_rotary = true,
     .rotary_share = 0.25,
     .context = 4096,
     .num_kv_heads = 32,
     .norm_epsilon = 1e-5,
     .norm_epsilon_key = "layer_norm_eps"},
    {.family = Family::kOlmo2,
     .name = "olmo2",
     .norm_place = NormPlace::kBehind,
     .qk_norm = QkNorm::kWhole,
     .qkv_bias = kAttentionBias,
     .out_bias = kAttentionBias,
     .norm_epsilon = 1e-5},
}};

}  // namespace

std::span<const FamilyFacts> Families() { return kFamilies; }

const FamilyFacts& FactsOf(Family family) {
  for (const FamilyFacts& facts : kFamilies) {
    if (facts.family == family) return facts;
  }
  KVC_THROW(kInternal, "family: expected one of the table, got {}", static_cast<int>(family));
}

std::string_view FamilyName(Family family) { return FactsOf(family).name; }

const FamilyFacts& ReadFamily(const Json& config, const std::string& origin) {
  std::string type = GetString(config, "model_type", origin);
  if (type == kThinModelType) {
    type = GetString(GetObject(config, "kvc", origin), "family", origin + ": kvc");
  }
  std::string names;
  for (const FamilyFacts& facts : kFamilies) {
    if (facts.name == type) return facts;
    names += (names.empty() ? "" : ", ") + std::string(facts.name);
  }
  KVC_THROW(kUnsupported,
            "{}: expected one of the model types {}, got \"{}\"; kvc does not have this "
            "architecture",
            origin, names, type);
}

}  // namespace kvc
