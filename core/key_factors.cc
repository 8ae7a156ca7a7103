#include <array>
#include <utility>

#include "core/config_fields.h"
#include "core/error.h"
#include "core/model_config.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<KeyLayout, std::string_view>, 5> kLayouts = {{
    {KeyLayout::kFull, "full"},
    {KeyLayout::kAbsorb, "absorb"},
    {KeyLayout::kLatent, "latent"},
    {KeyLayout::kPostRope, "post-rope"},
    {KeyLayout::kRopePairs, "rope-pairs"},
}};

// Widest key a group of the layout can have; refuses layouts that the family cannot have.
int64_t MaxRank(const ModelConfig& model, const KeyFactors& keys, const std::string& origin) {
  const bool latent = keys.layout == KeyLayout::kLatent;
  KVC_CHECK(latent || keys.layout == KeyLayout::kAbsorb,
            kUnsupported,
            origin,
            ": expected the layout absorb or latent, got ",
            KeyLayoutName(keys.layout));
  KVC_CHECK(latent == model.has_rope,
            kBadInput,
            origin,
            ": expected the layout ",
            model.has_rope ? "latent" : "absorb",
            " for ",
            FamilyName(model.family),
            ", got ",
            KeyLayoutName(keys.layout));
  const bool groups_fit = latent ? keys.num_groups >= 1 && model.num_kv_heads % keys.num_groups == 0
                                 : keys.num_groups == model.num_kv_heads;
  KVC_CHECK(groups_fit,
            kBadInput,
            origin,
            ": groups: expected ",
            latent ? "a divisor of the number of kv heads, " : "the number of kv heads, ",
            model.num_kv_heads,
            ", got ",
            keys.num_groups);
  return model.num_kv_heads / keys.num_groups * model.head_width;
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
  KVC_CHECK(format == 1,
            kUnsupported,
            origin,
            ": expected format 1, got ",
            format,
            "; a newer version of kvc wrote it");
  keys.layout = KeyLayoutFromName(GetString(block, "layout", origin));
  if (keys.layout == KeyLayout::kFull) {
    return keys;
  }
  keys.num_groups = GetInt(block, "groups", origin);
  const int64_t max_rank = MaxRank(model, keys, origin);
  const Json& ranks = GetArray(block, "ranks", origin);
  KVC_CHECK(static_cast<int64_t>(ranks.size()) == model.num_layers,
            kBadInput,
            origin,
            ": ranks: expected one list for each of ",
            model.num_layers,
            " layers, got ",
            ranks.size());
  for (const Json& layer : ranks) {
    KVC_CHECK(layer.is_array() && static_cast<int64_t>(layer.size()) == keys.num_groups,
              kBadInput,
              origin,
              ": ranks: expected ",
              keys.num_groups,
              " ranks in layer ",
              keys.ranks.size(),
              ", got ",
              layer.is_array() ? std::to_string(layer.size()) : "no list");
    std::vector<int64_t>& row = keys.ranks.emplace_back();
    for (const Json& rank : layer) {
      KVC_CHECK(rank.is_number_integer() && rank >= 1 && rank <= max_rank,
                kBadInput,
                origin,
                ": ranks: expected ranks in 1..",
                max_rank,
                " in layer ",
                keys.ranks.size() - 1,
                ", got ",
                rank.is_structured() ? "a nested value" : rank.dump());
      row.push_back(rank.get<int64_t>());
    }
  }
  return keys;
}

std::string_view KeyLayoutName(KeyLayout layout) {
  for (const auto& [known, name] : kLayouts) {
    if (known == layout) {
      return name;
    }
  }
  KVC_THROW(kInternal, "layout: expected one of the enumeration, got ", static_cast<int>(layout));
}

KeyLayout KeyLayoutFromName(std::string_view name) {
  for (const auto& [layout, known] : kLayouts) {
    if (known == name) {
      return layout;
    }
  }
  KVC_THROW(kBadInput,
            "key layout: expected full, absorb, latent, post-rope or rope-pairs, got \"",
            name,
            "\"");
}

Json ConfigWithKeys(const ModelConfig& config, const KeyFactors& keys) {
  Json result = config.source;
  result.erase("kvc");
  if (keys.layout == KeyLayout::kFull) {
    return result;
  }
  Json block;
  block["format"] = 1;
  block["layout"] = std::string(KeyLayoutName(keys.layout));
  block["groups"] = keys.num_groups;
  block["ranks"] = keys.ranks;
  result["kvc"] = block;
  return result;
}

}  // namespace kvc
