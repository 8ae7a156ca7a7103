#include "factorize/tune_state.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"
#include "factorize/factor_bytes.h"
#include "factorize/tuned_weights.h"

namespace kvc::factorize {
namespace {

constexpr const char* kReportKey = "report";

}  // namespace

TuneState::TuneState(std::filesystem::path directory, const Json& settings, Ranks& ranks)
    : directory_(std::move(directory)), ranks_(ranks) {
  if (!ranks_.is_first()) return;
  if (!std::filesystem::exists(SettingsPath())) {
    WriteJsonFile(SettingsPath(), settings);
    return;
  }
  const Json found = ReadJsonFile(SettingsPath());
  for (const auto& [key, value] : settings.items()) {
    KVC_CHECK(found.contains(key) && found[key] == value, kUsage,
              "{}: unfinished tuning: {}: expected {}, got {}; use the same options, another "
              "output, or remove that directory",
              directory_.string(), key, found.contains(key) ? found[key].dump() : "none",
              value.dump());
  }
}

std::optional<LayerTuning> TuneState::Load(int64_t layer, LayerFactors& factors) const {
  std::optional<LayerTuning> tuning;
  if (ranks_.is_first()) tuning = LoadFile(layer, factors);
  if (ranks_.is_only()) return tuning;
  const std::string report = ranks_.Broadcast(tuning ? ToJson(*tuning).dump() : "");
  if (report.empty()) return std::nullopt;
  factors = UnpackFactors(ranks_.Broadcast(ranks_.is_first() ? PackFactors(factors) : ""));
  return LayerTuningFromJson(ParseJson(report, kReportKey), kReportKey);
}

std::optional<LayerTuning> TuneState::LoadFile(int64_t layer, LayerFactors& factors) const {
  if (!std::filesystem::exists(LayerPath(layer))) return std::nullopt;
  const SafetensorsReader reader = SafetensorsReader::OpenFile(LayerPath(layer));
  const std::string origin = LayerPath(layer).filename().string();
  for (const TunedWeight& tuned : TunedWeights()) {
    if (!reader.Contains(tuned.name)) continue;
    const TensorRef& tensor = reader.Get(tuned.name);
    std::vector<float>& values = factors.*tuned.values;
    KVC_CHECK(tensor.dtype == DType::kF32 &&
                  (values.empty() || tensor.num_elements() == std::ssize(values)),
              kBadInput,
              "{}: {}: expected {} floats, got {} elements; remove the unfinished directory",
              origin, tuned.name, values.size(), tensor.num_elements());
    values.resize(tensor.num_elements());
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  KVC_CHECK(reader.metadata().contains(kReportKey), kBadInput, "{}: expected a report", origin);
  return LayerTuningFromJson(ParseJson(reader.metadata().at(kReportKey), origin), origin);
}

void TuneState::Save(int64_t layer, const LayerFactors& factors, const LayerTuning& tuning) const {
  if (!ranks_.is_first()) return;
  std::vector<TensorSpec> specs;
  for (const TunedWeight& tuned : TunedWeights()) {
    const std::vector<float>& values = factors.*tuned.values;
    if (!values.empty()) specs.push_back({tuned.name, DType::kF32, {std::ssize(values)}});
  }
  SafetensorsWriter writer(LayerPath(layer), specs, {{kReportKey, ToJson(tuning).dump()}});
  for (const TunedWeight& tuned : TunedWeights()) {
    const std::vector<float>& values = factors.*tuned.values;
    if (!values.empty()) writer.WriteFloats(tuned.name, values);
  }
  writer.Close();
}

void TuneState::Remove() const {
  if (!ranks_.is_first()) return;
  for (int64_t layer = 0; std::filesystem::remove(LayerPath(layer)); ++layer) {
  }
  for (const char* model : {"thin", "control"}) std::filesystem::remove(GlobalPath(model));
  std::filesystem::remove(SettingsPath());
}

std::filesystem::path TuneState::GlobalPath(const char* model) const {
  return directory_ / ("tuned-" + std::string(model) + ".safetensors");
}

std::filesystem::path TuneState::LayerPath(int64_t layer) const {
  return directory_ / ("tuned-layer-" + std::to_string(layer) + ".safetensors");
}

std::filesystem::path TuneState::SettingsPath() const { return directory_ / "tuning.json"; }

}  // namespace kvc::factorize
