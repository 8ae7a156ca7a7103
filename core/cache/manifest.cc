#include "core/cache/manifest.h"

#include <memory>
#include <span>
#include <vector>

#include "core/base/error.h"
#include "core/cache/cache_bases.h"
#include "core/cache/cache_json.h"
#include "core/io/files.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr char kManifestFile[] = "manifest.json";

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

Manifest ReadManifestAndBases(const std::filesystem::path& bundle) {
  Manifest manifest = ReadManifest(bundle);
  if (!manifest.files.contains(kBasesFile)) return manifest;
  manifest.cache.bases =
      std::make_shared<const std::vector<LayerBases>>(ReadBases(bundle / kBasesFile));
  CheckBasesFit(*manifest.cache.bases, manifest.cache);
  return manifest;
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
