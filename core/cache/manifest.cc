#include "core/cache/manifest.h"

#include <set>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr char kManifestFile[] = "manifest.json";

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

CacheGroup GroupFromJson(const Json& json, int64_t num_kv_heads, const std::string& origin) {
  CheckKeys(json, {"key_width", "value_width", "heads", "positions"}, origin);
  CacheGroup group;
  group.key_width = GetInt(json, "key_width", origin);
  group.value_width = GetInt(json, "value_width", origin);
  for (const Json& head : GetArray(json, "heads", origin)) {
    KVC_CHECK(
        head.is_number_integer() && head.get<int64_t>() >= 0 && head.get<int64_t>() < num_kv_heads,
        kBadInput, "{}: heads: expected numbers below {}, got {}", origin, num_kv_heads,
        head.dump());
    group.heads.push_back(head.get<int64_t>());
  }
  group.keeps_positions = GetBool(json, "positions", origin, false);
  KVC_CHECK(group.key_width > 0 && group.value_width > 0 && !group.heads.empty(), kBadInput,
            "{}: expected positive widths and at least one head", origin);
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
  for (size_t l = 0; l < values.size(); ++l) {
    KVC_CHECK(values[l].is_array() && values[l].size() == spec.layers[l].size(), kBadInput,
              "{}: values[{}]: expected one number for each of {} groups", origin, l,
              spec.layers[l].size());
    std::vector<double>& row = spec.budget.emplace_back();
    for (const Json& value : values[l]) {
      KVC_CHECK(value.is_number() && value.get<double>() >= 0.0, kBadInput,
                "{}: values[{}]: expected numbers >= 0, got {}", origin, l, value.dump());
      row.push_back(value.get<double>());
    }
  }
}

// A row format by its name; unknown ones are broken input here, not a wrong option.
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

void ReadFormats(const Json& json, CacheGeometry& geometry, const std::string& origin) {
  const bool alike = json.contains("dtype");
  KVC_CHECK(alike != (json.contains("key_dtype") || json.contains("value_dtype")), kBadInput,
            "{}: expected dtype, or key_dtype and value_dtype", origin);
  geometry.key_format = ReadFormat(json, alike ? "dtype" : "key_dtype", origin);
  geometry.value_format = ReadFormat(json, alike ? "dtype" : "value_dtype", origin);
  KVC_CHECK(!NeedsSteps(geometry.key_format) && !NeedsSteps(geometry.value_format), kUnsupported,
            "{}: expected f32, f16, bf16 or int8 for all rows, got {} and {}; x8, x4 and x2 are "
            "formats of tiers",
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
    for (const Json& group : layer)
      groups.push_back(GroupFromJson(group, spec.num_kv_heads, where));
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
  KVC_CHECK(spec.sinks >= 0 && spec.window >= 0 && spec.margin >= 0 && spec.query_ring >= 0,
            kBadInput, "{}: expected sinks, window, margin and query_ring >= 0", origin);
  KVC_CHECK(spec.full() || (spec.window > 0 && spec.margin > 0), kBadInput,
            "{}: expected window and margin > 0 with method {}", origin, MethodName(spec.method));
  ReadHeads(json, spec, origin);
  ReadTiers(json, spec, origin);
  if (json.contains("recent_dtype")) {
    spec.recent_format = ReadFormat(json, "recent_dtype", origin);
  }
  spec.basis = TierBasisFromName(GetString(json, "basis", origin, "offline"));
  ReadLayers(json, spec, origin);
  ReadWindows(json, spec, origin);
  CheckTiers(spec);
  ReadBudget(GetObject(json, "budget", origin), spec, origin + ": budget");
  return spec;
}

Json FilesToJson(const std::map<std::string, FileRecord>& files) {
  Json json = Json::object();
  for (const auto& [name, record] : files) {
    json[name] = {{"bytes", record.bytes}, {"sha256", record.sha256}};
  }
  return json;
}

std::map<std::string, FileRecord> FilesFromJson(const Json& json, const std::string& origin) {
  std::map<std::string, FileRecord> files;
  for (const auto& [name, record] : json.items()) {
    KVC_CHECK(!name.empty() && name.find('/') == std::string::npos && name != "..", kBadInput,
              "{}: expected plain file names, got \"{}\"", origin, name);
    const std::string where = origin + ": " + name;
    CheckKeys(record, {"bytes", "sha256"}, where);
    files[name] = {GetString(record, "sha256", where), GetInt(record, "bytes", where)};
  }
  return files;
}

Json BytesToJson(int64_t length, const CacheBytes& bytes) {
  return {{"length", length},
          {"full_bytes", bytes.full},
          {"logical_bytes", bytes.logical},
          {"allocated_bytes", bytes.allocated}};
}

DType ReadType(const Json& json, const char* key, const std::string& origin) {
  const std::string name = GetString(json, key, origin);
  const RowFormat format = ReadFormat(json, key, origin);
  KVC_CHECK(format.scales == RowScales::kNone, kBadInput,
            "{}: {}: expected f32, f16 or bf16, got {}", origin, key, name);
  return DTypeFromShortName(name);
}

// Bundles of older versions have one type for weights and cache, and count budgets in it.
void ReadTypes(const Json& json,
               const Json& source,
               const std::string& origin,
               Manifest& manifest) {
  const bool has_both = json.contains("weights_dtype") && source.contains("dtype");
  manifest.weights_dtype = has_both ? ReadType(json, "weights_dtype", origin)
                                    : ReadType(json["cache"], "dtype", origin + ": cache");
  manifest.cache.original_dtype =
      has_both ? ReadType(source, "dtype", origin + ": source") : manifest.weights_dtype;
}

// Expected bytes and the verification.
void ReadMeasured(const Json& json, Manifest& manifest, const std::string& origin) {
  for (const Json& entry : GetArray(json, "expected_bytes", origin)) {
    const std::string where = origin + ": expected_bytes";
    manifest.expected_bytes.emplace_back(
        GetInt(entry, "length", where),
        CacheBytes{GetInt(entry, "full_bytes", where), GetInt(entry, "logical_bytes", where),
                   GetInt(entry, "allocated_bytes", where)});
  }
  const Json& verification = GetObject(json, "verification", origin);
  const std::string where = origin + ": verification";
  manifest.verification = {
      GetBool(verification, "done", where, false), GetDouble(verification, "max_abs_error", where),
      GetDouble(verification, "tolerance", where), GetInt(verification, "tokens", where)};
}

}  // namespace

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

Json ToJson(const Manifest& manifest) {
  Json json;
  json["schema_version"] = kManifestSchema;
  json["kvc"] = manifest.tool_version;
  json["options"] = manifest.options;
  json["source"] = {{"name", manifest.source_name},
                    {"dtype", ShortName(manifest.cache.original_dtype)},
                    {"files", FilesToJson(manifest.source_files)}};
  json["weights_dtype"] = ShortName(manifest.weights_dtype);
  json["model"] = manifest.model.source == nullptr ? Json() : *manifest.model.source;
  json["cache"] = CacheToJson(manifest.cache);
  json["budget"] = ToString(manifest.budget);
  json["profile_sha256"] = manifest.profile_sha256;
  json["importance"] = manifest.importance;
  json["solver"] = {{"objective", manifest.solver.objective},
                    {"bound", manifest.solver.bound},
                    {"gap", manifest.solver.gap}};
  json["reference_length"] = manifest.reference_length;
  json["expected_bytes"] = Json::array();
  for (const auto& [length, bytes] : manifest.expected_bytes) {
    json["expected_bytes"].push_back(BytesToJson(length, bytes));
  }
  json["verification"] = {{"done", manifest.verification.done},
                          {"max_abs_error", manifest.verification.max_abs_error},
                          {"tolerance", manifest.verification.tolerance},
                          {"tokens", manifest.verification.tokens}};
  json["evaluation"] = manifest.evaluation;
  json["files"] = FilesToJson(manifest.files);
  json["sha256"] = ManifestDigest(json);
  return json;
}

std::string ManifestDigest(Json manifest) {
  manifest.erase("sha256");
  const std::string text = manifest.dump();
  return Sha256(std::as_bytes(std::span(text)));
}

std::string CacheDigest(const Manifest& manifest) {
  const std::string text = CacheToJson(manifest.cache).dump();
  return Sha256(std::as_bytes(std::span(text)));
}

Manifest ManifestFromJson(const Json& json, const std::string& origin) {
  const int64_t schema = GetInt(json, "schema_version", origin);
  KVC_CHECK(
      schema == kManifestSchema, kUnsupported,
      "{}: schema_version: expected {}, got {}; export the bundle again with this version of kvc",
      origin, kManifestSchema, schema);
  CheckKeys(json,
            {"schema_version", "kvc", "options", "source", "model", "cache", "budget",
             "weights_dtype", "profile_sha256", "importance", "solver", "reference_length",
             "expected_bytes", "verification", "evaluation", "files", "sha256"},
            origin);
  Manifest manifest;
  manifest.tool_version = GetString(json, "kvc", origin);
  manifest.options = GetObject(json, "options", origin);
  const Json& source = GetObject(json, "source", origin);
  manifest.source_name = GetString(source, "name", origin + ": source");
  manifest.source_files =
      FilesFromJson(GetObject(source, "files", origin + ": source"), origin + ": source");
  manifest.model = ParseModelConfig(GetObject(json, "model", origin), origin + ": model");
  manifest.cache = CacheFromJson(GetObject(json, "cache", origin), origin + ": cache");
  ReadTypes(json, source, origin, manifest);
  manifest.budget = ParseBudget(GetString(json, "budget", origin), origin + ": budget");
  manifest.profile_sha256 = GetString(json, "profile_sha256", origin, "");
  if (json.contains("importance")) manifest.importance = json["importance"];
  const Json& solver = GetObject(json, "solver", origin);
  manifest.solver = {GetDouble(solver, "objective", origin + ": solver"),
                     GetDouble(solver, "bound", origin + ": solver"),
                     GetDouble(solver, "gap", origin + ": solver")};
  manifest.reference_length = GetInt(json, "reference_length", origin);
  ReadMeasured(json, manifest, origin);
  if (json.contains("evaluation")) manifest.evaluation = json["evaluation"];
  manifest.files = FilesFromJson(GetObject(json, "files", origin), origin + ": files");
  return manifest;
}

Manifest ReadManifest(const std::filesystem::path& bundle) {
  return ManifestFromJson(ReadJsonFile(bundle / kManifestFile), kManifestFile);
}

void CheckBundleIsWhole(const Manifest& manifest, const std::filesystem::path& bundle) {
  const Json json = ReadJsonFile(bundle / kManifestFile);
  const std::string expected = GetString(json, "sha256", kManifestFile, "");
  const std::string actual = ManifestDigest(json);
  KVC_CHECK(expected.empty() || actual == expected, kVerification,
            "manifest.json: expected sha256 {} of what it says, got {}; export the bundle again",
            expected, actual);
  for (const auto& entry : std::filesystem::directory_iterator(bundle)) {
    const std::string name = entry.path().filename().string();
    const bool known = name == kManifestFile || manifest.files.contains(name);
    KVC_CHECK(known || name.starts_with('.'), kVerification,
              "{}: expected only files that manifest.json lists, got {}; remove it, or export the "
              "bundle again",
              bundle.string(), name);
  }
}

void CheckBundleFiles(const Manifest& manifest, const std::filesystem::path& bundle, bool hashes) {
  for (const auto& [name, record] : manifest.files) {
    const std::filesystem::path path = bundle / name;
    std::error_code error;
    const auto size = std::filesystem::file_size(path, error);
    KVC_CHECK(!error, kVerification, "{}: expected in the bundle, got {}", name, error.message());
    KVC_CHECK(static_cast<int64_t>(size) == record.bytes, kVerification,
              "{}: expected {} bytes as in manifest.json, got {}; export the bundle again", name,
              record.bytes, size);
    if (!hashes) continue;
    const std::string sha256 = Sha256File(path);
    KVC_CHECK(sha256 == record.sha256, kVerification,
              "{}: expected sha256 {} as in manifest.json, got {}; export the bundle again", name,
              record.sha256, sha256);
  }
}

}  // namespace kvc
