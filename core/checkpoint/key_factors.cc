#include "core/checkpoint/key_factors.h"

#include <algorithm>
#include <array>
#include <utility>

#include "core/base/enum_names.h"
#include "core/base/error.h"
#include "core/checkpoint/config_fields.h"
#include "core/checkpoint/model_config.h"
#include "core/checkpoint/thin_names.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<KeyLayout, std::string_view>, 5> kLayouts = {{
    {KeyLayout::kFull, "full"},
    {KeyLayout::kAbsorb, "absorb"},
    {KeyLayout::kLatent, "latent"},
    {KeyLayout::kPostRope, "post-rope"},
    {KeyLayout::kRopePairs, "rope-pairs"},
}};

// The widest key that a group of the layout can have. Refuses layouts that the family cannot have.
int64_t MaxRank(const ModelConfig& model, const KeyFactors& keys, const std::string& origin) {
  const std::string_view obstacle = LayoutObstacle(model, keys.layout);
  KVC_CHECK(obstacle.empty(), kBadInput, "{}: layout: expected one of {} for {}, got {}: {}",
            origin, PossibleLayouts(model), FamilyName(model.family), KeyLayoutName(keys.layout),
            obstacle);
  const bool latent = keys.layout == KeyLayout::kLatent;
  const bool groups_fit = latent ? keys.num_groups >= 1 && model.num_kv_heads % keys.num_groups == 0
                                 : keys.num_groups == model.num_kv_heads;
  KVC_CHECK(groups_fit, kBadInput, "{}: groups: expected {}{}, got {}", origin,
            latent ? "a divisor of the number of kv heads, " : "the number of kv heads, ",
            model.num_kv_heads, keys.num_groups);
  return model.num_kv_heads / keys.num_groups * model.head_width;
}

// Reads one layer's ranks, one for each group.
std::vector<int64_t> ParseRanks(const Json& layer,
                                const KeyFactors& keys,
                                int64_t max_rank,
                                const std::string& origin) {
  KVC_CHECK(layer.is_array() && static_cast<int64_t>(layer.size()) == keys.num_groups, kBadInput,
            "{}: ranks: expected {} ranks in layer {}, got {}", origin, keys.num_groups,
            keys.ranks.size(), layer.is_array() ? std::to_string(layer.size()) : "no list");
  const int64_t step = keys.layout == KeyLayout::kRopePairs ? 2 : 1;
  std::vector<int64_t> row;
  for (const Json& rank : layer) {
    KVC_CHECK(rank.is_number_integer() && rank >= step && rank <= max_rank &&
                  rank.get<int64_t>() % step == 0,
              kBadInput, "{}: ranks: expected {}ranks in {}..{} in layer {}, got {}", origin,
              step == 1 ? "" : "even ", step, max_rank, keys.ranks.size(),
              rank.is_structured() ? "a nested value" : rank.dump());
    row.push_back(rank.get<int64_t>());
  }
  return row;
}

// Reads the rotation pairs of one kv head: R/2 different ones of 0..D/2-1.
std::vector<int64_t> ParseHeadPairs(const Json& head,
                                    int64_t count,
                                    int64_t available,
                                    const std::string& origin) {
  KVC_CHECK(head.is_array() && static_cast<int64_t>(head.size()) == count, kBadInput,
            "{}: expected {} rotation pairs, half the rank, got {}", origin, count,
            head.is_array() ? std::to_string(head.size()) : "no list");
  std::vector<int64_t> pairs;
  for (const Json& pair : head) {
    const bool in_range = pair.is_number_integer() && pair >= 0 && pair < available;
    KVC_CHECK(in_range && std::find(pairs.begin(), pairs.end(), pair.get<int64_t>()) == pairs.end(),
              kBadInput, "{}: expected different pairs in 0..{}, got {}", origin, available - 1,
              pair.is_structured() ? "a nested value" : pair.dump());
    pairs.push_back(pair.get<int64_t>());
  }
  return pairs;
}

void ParsePairs(const Json& block,
                const ModelConfig& model,
                const std::string& origin,
                KeyFactors& keys) {
  const Json& layers = GetArray(block, "pairs", origin);
  KVC_CHECK(layers.size() == keys.ranks.size(), kBadInput,
            "{}: pairs: expected one list for each of {} layers, got {}", origin, keys.ranks.size(),
            layers.size());
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string name = origin + ": pairs of layer " + std::to_string(l);
    const Json& heads = layers[l];
    KVC_CHECK(heads.is_array() && heads.size() == keys.ranks[l].size(), kBadInput,
              "{}: expected one list for each of {} kv heads, got {}", name, keys.ranks[l].size(),
              heads.is_array() ? std::to_string(heads.size()) : "no list");
    auto& layer = keys.pairs.emplace_back();
    for (size_t g = 0; g < heads.size(); ++g) {
      layer.push_back(ParseHeadPairs(heads[g], keys.ranks[l][g] / 2, model.head_width / 2,
                                     name + ", head " + std::to_string(g)));
    }
  }
}

}  // namespace

KeyFactors ParseKeys(const Json& config,
                     const ModelConfig& model,
                     const std::string& config_origin) {
  KeyFactors keys;
  if (FindSet(config, "kvc") == nullptr) {
    return keys;
  }
  const Json& block = GetObject(config, "kvc", config_origin);
  const std::string origin = config_origin + ": kvc";
  const int64_t format = GetInt(block, "format", origin);
  KVC_CHECK(format == 1, kUnsupported,
            "{}: expected format 1, got {}; a newer version of kvc wrote it", origin, format);
  keys.layout = KeyLayoutFromName(GetString(block, "layout", origin));
  if (keys.layout == KeyLayout::kFull) {
    return keys;
  }
  keys.num_groups = GetInt(block, "groups", origin);
  const int64_t max_rank = MaxRank(model, keys, origin);
  const Json& ranks = GetArray(block, "ranks", origin);
  KVC_CHECK(static_cast<int64_t>(ranks.size()) == model.num_layers, kBadInput,
            "{}: ranks: expected one list for each of {} layers, got {}", origin, model.num_layers,
            ranks.size());
  for (const Json& layer : ranks) {
    keys.ranks.push_back(ParseRanks(layer, keys, max_rank, origin));
  }
  if (keys.layout == KeyLayout::kRopePairs) ParsePairs(block, model, origin, keys);
  return keys;
}

std::string_view KeyLayoutName(KeyLayout layout) { return EnumName(kLayouts, layout); }

KeyLayout KeyLayoutFromName(std::string_view name) {
  for (const auto& [layout, known] : kLayouts) {
    if (known == name) {
      return layout;
    }
  }
  KVC_THROW(kBadInput,
            "key layout: expected full, absorb, latent, post-rope or rope-pairs, got \"{}\"", name);
}

bool KeysBehindRotation(KeyLayout layout) {
  return layout == KeyLayout::kPostRope || layout == KeyLayout::kRopePairs;
}

std::string_view LayoutObstacle(const ModelConfig& config, KeyLayout layout) {
  if (layout == KeyLayout::kFull) return "";
  if (layout == KeyLayout::kAbsorb) {
    return config.has_rope ? "rotation stands between the projection and the dot product" : "";
  }
  if (!config.has_rope) {
    return "there is no rotation, and absorb caches the same keys without a factor beside the "
           "projections";
  }
  if (layout == KeyLayout::kRopePairs) {
    if (config.qk_norm != QkNorm::kNone) return "its key norm needs all dimensions of a head";
    return config.rotary_width() < config.head_width
               ? "a part of each head is not rotated, and has no pairs"
               : "";
  }
  if (layout == KeyLayout::kLatent) {
    if (config.qk_norm == QkNorm::kWhole) return "its key norm spans all heads of a layer";
    return config.rope.scaling == RopeScaling::kLongRope
               ? "rebuilt keys cannot keep the angles that longrope gave them at another length"
               : "";
  }
  return "";
}

std::string PossibleLayouts(const ModelConfig& config) {
  constexpr std::array<std::pair<KeyLayout, std::string_view>, 4> kNames = {{
      {KeyLayout::kAbsorb, "absorb"},
      {KeyLayout::kLatent, "latent:N, latent:heads"},
      {KeyLayout::kPostRope, "post-rope"},
      {KeyLayout::kRopePairs, "rope-pairs"},
  }};
  std::string names;
  for (const auto& [layout, name] : kNames) {
    if (!LayoutObstacle(config, layout).empty()) continue;
    names += (names.empty() ? "" : ", ") + std::string(name);
  }
  return names;
}

Json ConfigWithKeys(const ModelConfig& config, const KeyFactors& keys) {
  Json result = *config.source;
  result.erase("kvc");
  if (keys.layout == KeyLayout::kFull) {
    if (result["model_type"] == kThinModelType) {
      result["model_type"] = std::string(FamilyName(config.family));
      result.erase("architectures");
      result.erase("auto_map");
    }
    return result;
  }
  const auto in_module = [](std::string_view name) {
    return std::string(kModelingModule) + "." + std::string(name);
  };
  result["model_type"] = std::string(kThinModelType);
  result["architectures"] = Json::array({std::string(kModelingModelClass)});
  result["auto_map"] = {{"AutoConfig", in_module(kModelingConfigClass)},
                        {"AutoModelForCausalLM", in_module(kModelingModelClass)}};
  Json block;
  block["format"] = 1;
  block["family"] = std::string(FamilyName(config.family));
  block["layout"] = std::string(KeyLayoutName(keys.layout));
  block["groups"] = keys.num_groups;
  block["ranks"] = keys.ranks;
  if (keys.layout == KeyLayout::kRopePairs) block["pairs"] = keys.pairs;
  result["kvc"] = block;
  return result;
}

}  // namespace kvc
