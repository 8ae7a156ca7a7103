#include "factorize/tune_state.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/safetensors.h"

namespace kvc::factorize {
namespace {

constexpr const char* kReportKey = "report";

using Floats = std::vector<float>;
struct NamedFactor {
  const char* name;
  Floats LayerFactors::*member;
};
constexpr NamedFactor kFactors[] = {
    {"q", &LayerFactors::q}, {"k", &LayerFactors::k}, {"k_rebuild", &LayerFactors::k_rebuild}};

}  // namespace

TuneState::TuneState(std::filesystem::path directory, const Json& settings)
    : directory_(std::move(directory)) {
  if (!std::filesystem::exists(SettingsPath())) {
    WriteJsonFile(SettingsPath(), settings);
    return;
  }
  const Json found = ReadJsonFile(SettingsPath());
  for (const auto& [key, value] : settings.items()) {
    KVC_CHECK(found.contains(key) && found[key] == value,
              kUsage,
              directory_.string(),
              ": unfinished tuning: ",
              key,
              ": expected ",
              found.contains(key) ? found[key].dump() : "none",
              ", got ",
              value.dump(),
              "; use the same options, another output, or remove that directory");
  }
}

std::optional<Json> TuneState::Load(int64_t layer, LayerFactors& factors) const {
  if (!std::filesystem::exists(LayerPath(layer))) return std::nullopt;
  const SafetensorsReader reader = SafetensorsReader::OpenFile(LayerPath(layer));
  const std::string origin = LayerPath(layer).filename().string();
  for (const NamedFactor& factor : kFactors) {
    if (!reader.Contains(factor.name)) continue;
    const TensorRef& tensor = reader.Get(factor.name);
    Floats& values = factors.*factor.member;
    KVC_CHECK(tensor.dtype == DType::kF32 &&
                  (values.empty() || tensor.num_elements() == std::ssize(values)),
              kBadInput,
              origin,
              ": ",
              factor.name,
              ": expected ",
              values.size(),
              " floats, got ",
              tensor.num_elements(),
              " elements; remove the unfinished directory");
    values.resize(tensor.num_elements());
    std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  KVC_CHECK(reader.metadata().contains(kReportKey), kBadInput, origin, ": expected a report");
  return ParseJson(reader.metadata().at(kReportKey), origin);
}

void TuneState::Save(int64_t layer, const LayerFactors& factors, const Json& report) const {
  std::vector<TensorSpec> specs;
  for (const NamedFactor& factor : kFactors) {
    const Floats& values = factors.*factor.member;
    if (!values.empty()) specs.push_back({factor.name, DType::kF32, {std::ssize(values)}});
  }
  SafetensorsWriter writer(LayerPath(layer), specs, {{kReportKey, report.dump()}});
  for (const NamedFactor& factor : kFactors) {
    const Floats& values = factors.*factor.member;
    if (!values.empty()) writer.WriteFloats(factor.name, values);
  }
  writer.Close();
}

void TuneState::Remove() const {
  for (int64_t layer = 0; std::filesystem::remove(LayerPath(layer)); ++layer) {
  }
  std::filesystem::remove(SettingsPath());
}

std::filesystem::path TuneState::LayerPath(int64_t layer) const {
  return directory_ / ("tuned-layer-" + std::to_string(layer) + ".safetensors");
}

std::filesystem::path TuneState::SettingsPath() const { return directory_ / "tuning.json"; }

}  // namespace kvc::factorize
