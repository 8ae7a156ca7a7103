#include "core/cache/profile_file.h"

#include <cmath>

#include "core/base/error.h"
#include "core/cache/cache_json.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc {
namespace {

constexpr int64_t kProfileSchema = 1;
constexpr const char* kTensorFile = "profile.safetensors";
constexpr const char* kJsonFile = "profile.json";

constexpr const char* kOracleImportance = "importance.oracle";
constexpr const char* kNeedleImportance = "importance.needle";

std::string CurveName(const ScorerSpec& scorer) { return "curve." + ToString(scorer); }
std::string ErrorName(const ScorerSpec& scorer) { return "error." + ToString(scorer); }

std::string MixedName(const ScorerSpec& scorer) { return "mixed." + ToString(scorer); }

// A float tensor of exactly `shape`, finite.
std::vector<float> ReadFloats(const SafetensorsReader& reader,
                              const std::string& name,
                              const std::vector<int64_t>& shape) {
  const TensorRef& tensor = reader.Get(name);
  KVC_CHECK(tensor.dtype == DType::kF32 && tensor.shape == shape, kBadInput,
            "{}: {}: expected F32 with the sizes of profile.json, got another type or shape",
            kTensorFile, name);
  std::vector<float> values(tensor.num_elements());
  ConvertToFloat(tensor.dtype, tensor.bytes.data(), tensor.num_elements(), values.data());
  for (const float value : values) {
    KVC_CHECK(std::isfinite(value), kNumeric, "{}: {}: holds a NaN or infinity", kTensorFile, name);
  }
  return values;
}

struct NamedTensor {
  std::string name;
  std::vector<int64_t> shape;
  const std::vector<float>* values = nullptr;
};

// All tensors of a profile in the order of the file. Borrows from it.
std::vector<NamedTensor> TensorsOf(const ProfileData& profile) {
  const std::vector<int64_t> curve = {profile.num_layers, profile.num_kv_heads,
                                      kCurveIntervals + 1};
  const std::vector<int64_t> heads = {profile.num_layers, profile.num_kv_heads};
  std::vector<NamedTensor> tensors;
  for (const auto& [scorer, values] : profile.curves) {
    tensors.push_back({CurveName(scorer), curve, &values});
  }
  for (const auto& [scorer, values] : profile.error_curves) {
    tensors.push_back({ErrorName(scorer), curve, &values});
  }
  for (const auto& [scorer, values] : profile.mixed_curves) {
    tensors.push_back({MixedName(scorer), curve, &values});
  }
  tensors.push_back({"curve.oracle", curve, &profile.oracle_curve});
  tensors.push_back({"importance", heads, &profile.importance});
  if (!profile.oracle_importance.empty()) {
    tensors.push_back({kOracleImportance, heads, &profile.oracle_importance});
  }
  if (!profile.needle_importance.empty()) {
    tensors.push_back({kNeedleImportance, heads, &profile.needle_importance});
  }
  return tensors;
}

// The bases beside a profile, of its layers and heads.
std::vector<LayerBases> ReadProfileBases(const std::filesystem::path& directory,
                                         const ProfileData& profile) {
  std::vector<LayerBases> bases = ReadBases(directory / kBasesFile);
  bool fit = std::ssize(bases) == profile.num_layers;
  for (const LayerBases& layer : bases) fit = fit && layer.num_kv_heads == profile.num_kv_heads;
  KVC_CHECK(fit, kBadInput, "{}: expected {} layers of {} kv heads as in {}, got others",
            kBasesFile, profile.num_layers, profile.num_kv_heads, kJsonFile);
  return bases;
}

// Curves and importances of profile.safetensors; `json`: profile.json.
void ReadTensors(const std::filesystem::path& directory,
                 const Json& json,
                 const std::string& origin,
                 ProfileData& profile) {
  const auto reader = SafetensorsReader::OpenFile(directory / kTensorFile);
  const std::vector<int64_t> curve_shape = {profile.num_layers, profile.num_kv_heads,
                                            kCurveIntervals + 1};
  for (const Json& name : GetArray(json, "scorers", origin)) {
    KVC_CHECK(name.is_string(), kBadInput, "{}: scorers: expected names", origin);
    const ScorerSpec scorer = ParseScorer(name.get<std::string>(), "scorers");
    profile.curves[scorer] = ReadFloats(reader, CurveName(scorer), curve_shape);
    if (reader.Contains(ErrorName(scorer))) {
      profile.error_curves[scorer] = ReadFloats(reader, ErrorName(scorer), curve_shape);
    }
    if (reader.Contains(MixedName(scorer))) {
      profile.mixed_curves[scorer] = ReadFloats(reader, MixedName(scorer), curve_shape);
    }
  }
  profile.oracle_curve = ReadFloats(reader, "curve.oracle", curve_shape);
  const std::vector<int64_t> heads = {profile.num_layers, profile.num_kv_heads};
  profile.importance = ReadFloats(reader, "importance", heads);
  const auto read_optional = [&](const char* name, std::vector<float>& values) {
    if (reader.Contains(name)) values = ReadFloats(reader, name, heads);
  };
  read_optional(kOracleImportance, profile.oracle_importance);
  read_optional(kNeedleImportance, profile.needle_importance);
}

}  // namespace

std::set<std::filesystem::path> ModelFiles(const std::filesystem::path& directory) {
  std::set<std::filesystem::path> files;  // sorted by name
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    if (name == "config.json" || name.ends_with(".safetensors") ||
        name.ends_with(".safetensors.index.json")) {
      files.insert(entry.path());
    }
  }
  KVC_CHECK(!files.empty(), kBadInput, "{}: expected a model, got no files of one",
            directory.string());
  return files;
}

std::string ModelDigest(const std::filesystem::path& directory) {
  std::map<std::string, std::string> hashes;
  for (const auto& path : ModelFiles(directory)) {
    hashes[path.filename().string()] = Sha256File(path);
  }
  return ModelDigest(hashes);
}

std::string ModelDigest(const std::map<std::string, std::string>& hashes) {
  std::string text;
  for (const auto& [name, hash] : hashes) text += name + " " + hash + "\n";
  return Sha256(std::as_bytes(std::span(text)));
}

void WriteProfile(const std::filesystem::path& directory, const ProfileData& profile) {
  Json json;
  json["schema_version"] = kProfileSchema;
  json["kvc"] = profile.tool_version;
  json["model_sha256"] = profile.model_sha256;
  json["num_layers"] = profile.num_layers;
  json["num_kv_heads"] = profile.num_kv_heads;
  json["context"] = profile.context;
  json["horizon"] = profile.horizon;
  json["windows"] = profile.windows;
  json["sinks"] = profile.sinks;
  json["window"] = profile.window;
  json["scorers"] = Json::array();
  for (const auto& [scorer, curve] : profile.curves) json["scorers"].push_back(ToString(scorer));
  for (const Tier& tier : profile.tiers) json["tiers"].push_back(ToJson(tier));
  json["importance"] = {{"method", profile.importance_method}, {"tests", profile.importance_tests}};
  if (profile.needle_tests > 0) {
    json["importance"]["needle_tests"] = profile.needle_tests;
    json["importance"]["needle_passed"] = profile.needle_passed;
  }
  if (!profile.bases.empty()) {
    WriteBases(directory / kBasesFile, profile.bases);
    json["bases"] = kBasesFile;
  }
  json["options"] = profile.options;
  WriteJsonFile(directory / kJsonFile, json);

  std::vector<TensorSpec> specs;
  const std::vector<NamedTensor> tensors = TensorsOf(profile);
  specs.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    specs.push_back({tensor.name, DType::kF32, tensor.shape});
  }
  SafetensorsWriter writer(directory / kTensorFile, specs, {{"format", "kvc-profile"}});
  for (const NamedTensor& tensor : tensors) writer.WriteFloats(tensor.name, *tensor.values);
  writer.Close();
}

ProfileData ReadProfile(const std::filesystem::path& directory) {
  const Json json = ReadJsonFile(directory / kJsonFile);
  const std::string origin = kJsonFile;
  const int64_t schema = GetInt(json, "schema_version", origin);
  KVC_CHECK(schema == kProfileSchema, kUnsupported, "{}: schema_version: expected {}, got {}",
            origin, kProfileSchema, schema);
  ProfileData profile;
  profile.tool_version = GetString(json, "kvc", origin);
  profile.model_sha256 = GetString(json, "model_sha256", origin);
  profile.num_layers = GetInt(json, "num_layers", origin);
  profile.num_kv_heads = GetInt(json, "num_kv_heads", origin);
  KVC_CHECK(profile.num_layers > 0 && profile.num_kv_heads > 0, kBadInput,
            "{}: expected num_layers and num_kv_heads > 0", origin);
  profile.context = GetInt(json, "context", origin);
  profile.horizon = GetInt(json, "horizon", origin);
  profile.windows = GetInt(json, "windows", origin);
  profile.sinks = GetInt(json, "sinks", origin);
  profile.window = GetInt(json, "window", origin);
  if (json.contains("tiers")) {
    for (const Json& tier : GetArray(json, "tiers", origin)) {
      profile.tiers.push_back(TierFromJson(tier, origin + ": tiers"));
    }
  }
  const Json& importance = GetObject(json, "importance", origin);
  profile.importance_method = GetString(importance, "method", origin + ": importance");
  profile.importance_tests = GetInt(importance, "tests", origin + ": importance");
  profile.needle_tests = GetInt(importance, "needle_tests", origin + ": importance", 0);
  profile.needle_passed = GetInt(importance, "needle_passed", origin + ": importance", 0);
  profile.options = GetObject(json, "options", origin);

  ReadTensors(directory, json, origin, profile);
  if (json.contains("bases")) profile.bases = ReadProfileBases(directory, profile);
  return profile;
}

}  // namespace kvc
