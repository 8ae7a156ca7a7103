#include "core/cache/cache_json.h"

#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/base/size_limits.h"
#include "core/io/json.h"

namespace kvc {
namespace {

// Rows far beyond every cache's, like the sizes of core/base/size_limits.h.
constexpr int64_t kMostRows = (1LL << 31) - 1;

Json GroupToJson(const CacheGroup& group) {
  Json json;
  json["key_width"] = group.key_width;
  json["value_width"] = group.value_width;
  json["heads"] = group.heads;
  json["positions"] = group.keeps_positions;
  return json;
}

// "dtype" where keys and values lie alike, else "key_dtype" and "value_dtype".
void FormatsToJson(const RowFormat& key, const RowFormat& value, Json& json) {
  if (key == value) {
    json["dtype"] = RowFormatName(key);
    return;
  }
  json["key_dtype"] = RowFormatName(key);
  json["value_dtype"] = RowFormatName(value);
}

CacheGroup GroupFromJson(const Json& json, const CacheSpec& spec, const std::string& origin) {
  CheckKeys(json, {"key_width", "value_width", "heads", "positions"}, origin);
  CacheGroup group;
  group.key_width = GetInt(json, "key_width", origin);
  group.value_width = GetInt(json, "value_width", origin);
  for (const Json& head : GetArray(json, "heads", origin)) {
    KVC_CHECK(head.is_number_integer() && head.get<int64_t>() >= 0 &&
                  head.get<int64_t>() < spec.num_kv_heads,
              kBadInput, "{}: heads: expected numbers below {}, got {}", origin, spec.num_kv_heads,
              head.dump());
    group.heads.push_back(head.get<int64_t>());
  }
  group.keeps_positions = GetBool(json, "positions", origin, false);
  KVC_CHECK(group.key_width > 0 && group.value_width > 0 && !group.heads.empty(), kBadInput,
            "{}: expected positive widths and at least one head", origin);
  KVC_CHECK(group.key_width <= std::ssize(group.heads) * spec.head_width &&
                group.value_width <= spec.head_width,
            kBadInput, "{}: expected widths of at most {} for each of {} heads, got {} and {}",
            origin, spec.head_width, group.heads.size(), group.key_width, group.value_width);
  return group;
}

// Each kv head belongs to exactly one group of its layer.
void CheckHeads(const std::vector<CacheGroup>& groups,
                int64_t num_kv_heads,
                const std::string& origin) {
  std::set<int64_t> seen;
  for (const CacheGroup& group : groups) {
    for (const int64_t head : group.heads) {
      KVC_CHECK(seen.insert(head).second, kBadInput, "{}: head {} stands twice", origin, head);
    }
  }
  KVC_CHECK(static_cast<int64_t>(seen.size()) == num_kv_heads, kBadInput,
            "{}: expected {} kv heads, got {}", origin, num_kv_heads, seen.size());
}

void ReadBudget(const Json& json, CacheSpec& spec, const std::string& origin) {
  CheckKeys(json, {"unit", "values"}, origin);
  const std::string unit = GetString(json, "unit", origin);
  KVC_CHECK(unit == "share" || unit == "rows", kBadInput,
            "{}: unit: expected share or rows, got {}", origin, unit);
  spec.by_share = unit == "share";
  if (spec.full()) return;
  const Json& values = GetArray(json, "values", origin);
  KVC_CHECK(values.size() == spec.layers.size(), kBadInput,
            "{}: values: expected {} layers, got {}", origin, spec.layers.size(), values.size());
  const double most = spec.by_share ? 1.0 : static_cast<double>(kMostRows);
  for (size_t l = 0; l < values.size(); ++l) {
    KVC_CHECK(values[l].is_array() && values[l].size() == spec.layers[l].size(), kBadInput,
              "{}: values[{}]: expected one number for each of {} groups", origin, l,
              spec.layers[l].size());
    std::vector<double>& row = spec.budget.emplace_back();
    for (const Json& value : values[l]) {
      KVC_CHECK(value.is_number() && value.get<double>() >= 0.0 && value.get<double>() <= most,
                kBadInput, "{}: values[{}]: expected numbers in 0..{}, got {}", origin, l, most,
                value.dump());
      row.push_back(value.get<double>());
    }
  }
}

void ReadFormats(const Json& json, CacheGeometry& geometry, const std::string& origin) {
  const bool alike = json.contains("dtype");
  KVC_CHECK(alike != (json.contains("key_dtype") || json.contains("value_dtype")), kBadInput,
            "{}: expected dtype, or key_dtype and value_dtype", origin);
  geometry.key_format = ReadFormat(json, alike ? "dtype" : "key_dtype", origin);
  geometry.value_format = ReadFormat(json, alike ? "dtype" : "value_dtype", origin);
  KVC_CHECK(!NeedsSteps(geometry.key_format) && !NeedsSteps(geometry.value_format), kUnsupported,
            "{}: expected f32, f16, bf16 or int8 for all rows, got {} and {}; those with "
            "steps are formats of tiers",
            origin, RowFormatName(geometry.key_format), RowFormatName(geometry.value_format));
}

void ReadTiers(const Json& json, CacheSpec& spec, const std::string& origin) {
  double last = 2.0;
  for (const Json& entry : GetArray(json, "tiers", origin)) {
    const Tier tier = TierFromJson(entry, origin + ": tiers");
    KVC_CHECK(tier.key_share > 0.0 && tier.key_share <= 1.0 && tier.value_share > 0.0 &&
                  tier.value_share <= 1.0 && tier.key_share + tier.value_share < last + 1e-12,
              kBadInput, "{}: tiers: expected shares in (0, 1], widest first", origin);
    last = tier.key_share + tier.value_share;
    spec.tiers.push_back(tier);
  }
}

void ReadLayers(const Json& json, CacheSpec& spec, const std::string& origin) {
  for (const Json& layer : GetArray(json, "layers", origin)) {
    const std::string where = origin + ": layers[" + std::to_string(spec.layers.size()) + "]";
    KVC_CHECK(layer.is_array(), kBadInput, "{}: expected a list of groups", where);
    std::vector<CacheGroup> groups;
    for (const Json& group : layer) groups.push_back(GroupFromJson(group, spec, where));
    CheckHeads(groups, spec.num_kv_heads, where);
    spec.layers.push_back(std::move(groups));
  }
}

void ReadHeads(const Json& json, CacheSpec& spec, const std::string& origin) {
  spec.num_heads = GetInt(json, "num_heads", origin);
  spec.num_kv_heads = GetInt(json, "num_kv_heads", origin);
  spec.head_width = GetInt(json, "head_width", origin);
  KVC_CHECK(spec.num_kv_heads > 0 && spec.head_width > 0 && spec.num_heads > 0 &&
                spec.num_heads % spec.num_kv_heads == 0,
            kBadInput, "{}: expected num_heads a multiple of num_kv_heads, got {} and {}", origin,
            spec.num_heads, spec.num_kv_heads);
  KVC_CHECK(spec.head_width <= kMostRows, kBadInput, "{}: head_width: expected at most {}, got {}",
            origin, kMostRows, spec.head_width);
}

// Sizes that are read by now: rows of all kinds, heads and their width.
void CheckSizes(const CacheSpec& spec, const std::string& origin) {
  for (const int64_t rows : {spec.sinks, spec.window, spec.margin, spec.query_ring}) {
    KVC_CHECK(rows >= 0 && rows <= kMostRows, kBadInput,
              "{}: expected sinks, window, margin and query_ring in 0..{}, got {}", origin,
              kMostRows, rows);
  }
  const double elements = static_cast<double>(spec.layers.size()) *
                          static_cast<double>(spec.num_heads) *
                          static_cast<double>(spec.head_width);
  KVC_CHECK(elements <= kMostQueryElements, kBadInput,
            "{}: expected the sizes of a model, got {} layers of num_heads {} and head_width {}",
            origin, spec.layers.size(), spec.num_heads, spec.head_width);
}

void ReadWindows(const Json& json, CacheSpec& spec, const std::string& origin) {
  if (!json.contains("attention_windows")) return;
  for (const Json& window : GetArray(json, "attention_windows", origin)) {
    KVC_CHECK(window.is_number_integer() && window.get<int64_t>() >= 0, kBadInput,
              "{}: attention_windows: expected numbers of tokens, 0 for all, got {}", origin,
              window.dump());
    spec.attention_windows.push_back(window.get<int64_t>());
  }
  KVC_CHECK(spec.attention_windows.size() == spec.layers.size(), kBadInput,
            "{}: attention_windows: expected one for each of {} layers, got {}", origin,
            spec.layers.size(), spec.attention_windows.size());
}

}  // namespace

RowFormat ReadFormat(const Json& json, const char* key, const std::string& origin) {
  const std::string name = GetString(json, key, origin);
  try {
    return RowFormatFromName(name);
  } catch (const Error&) {
    KVC_THROW(kUnsupported,
              "{}: {}: expected a row format that this version knows, got \"{}\"; use the kvc that "
              "wrote the bundle, or a newer one",
              origin, key, name);
  }
}

Json ToJson(const Tier& tier) {
  Json json = {{"key_share", tier.key_share}, {"value_share", tier.value_share}};
  if (tier.key_format) json["key_dtype"] = RowFormatName(*tier.key_format);
  if (tier.value_format) json["value_dtype"] = RowFormatName(*tier.value_format);
  return json;
}

Tier TierFromJson(const Json& json, const std::string& origin) {
  CheckKeys(json, {"key_share", "value_share", "key_dtype", "value_dtype"}, origin);
  Tier tier{GetDouble(json, "key_share", origin), GetDouble(json, "value_share", origin)};
  if (json.contains("key_dtype")) tier.key_format = ReadFormat(json, "key_dtype", origin);
  if (json.contains("value_dtype")) tier.value_format = ReadFormat(json, "value_dtype", origin);
  return tier;
}

Json CacheToJson(const CacheSpec& spec) {
  Json json;
  FormatsToJson(spec.key_format, spec.value_format, json);
  json["method"] = MethodName(spec.method);
  json["scorer"] = ToString(spec.scorer);
  json["sinks"] = spec.sinks;
  json["window"] = spec.window;
  json["margin"] = spec.margin;
  json["query_ring"] = spec.query_ring;
  json["tiers"] = Json::array();
  for (const Tier& tier : spec.tiers) json["tiers"].push_back(ToJson(tier));
  if (spec.recent_format) json["recent_dtype"] = RowFormatName(*spec.recent_format);
  if (spec.has_narrow_tiers()) json["basis"] = TierBasisName(spec.basis);
  json["num_heads"] = spec.num_heads;
  json["num_kv_heads"] = spec.num_kv_heads;
  json["head_width"] = spec.head_width;
  if (!spec.attention_windows.empty()) json["attention_windows"] = spec.attention_windows;
  json["layers"] = Json::array();
  for (const auto& groups : spec.layers) {
    Json layer = Json::array();
    for (const CacheGroup& group : groups) layer.push_back(GroupToJson(group));
    json["layers"].push_back(std::move(layer));
  }
  json["budget"] = {{"unit", spec.by_share ? "share" : "rows"}, {"values", spec.budget}};
  return json;
}

CacheSpec CacheFromJson(const Json& json, const std::string& origin) {
  CheckKeys(json,
            {"dtype", "key_dtype", "value_dtype", "method", "scorer", "sinks", "window", "margin",
             "query_ring", "tiers", "recent_dtype", "basis", "num_heads", "num_kv_heads",
             "head_width", "attention_windows", "layers", "budget"},
            origin);
  CacheSpec spec;
  ReadFormats(json, spec, origin);
  spec.method = MethodFromName(GetString(json, "method", origin));
  spec.scorer = ParseScorer(GetString(json, "scorer", origin), "scorer");
  spec.sinks = GetInt(json, "sinks", origin);
  spec.window = GetInt(json, "window", origin);
  spec.margin = GetInt(json, "margin", origin);
  spec.query_ring = GetInt(json, "query_ring", origin);
  KVC_CHECK(spec.full() || (spec.window > 0 && spec.margin > 0), kBadInput,
            "{}: expected window and margin > 0 with method {}", origin, MethodName(spec.method));
  ReadHeads(json, spec, origin);
  ReadTiers(json, spec, origin);
  if (json.contains("recent_dtype")) {
    spec.recent_format = ReadFormat(json, "recent_dtype", origin);
  }
  spec.basis = TierBasisFromName(GetString(json, "basis", origin, "offline"));
  ReadLayers(json, spec, origin);
  CheckSizes(spec, origin);
  ReadWindows(json, spec, origin);
  CheckTiers(spec);
  ReadBudget(GetObject(json, "budget", origin), spec, origin + ": budget");
  return spec;
}

}  // namespace kvc
