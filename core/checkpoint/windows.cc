#include "core/checkpoint/windows.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/base/error.h"
#include "core/checkpoint/config_fields.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr int64_t kDefaultWindow = 4096;        // of MistralConfig, Qwen2Config and Qwen3Config
constexpr int64_t kDefaultWindowedLayers = 28;  // max_window_layers of both Qwen configurations

bool IsQwen(Family family) { return family == Family::kQwen2 || family == Family::kQwen3; }

// The width of the windows; none: no layer may have one.
std::optional<int64_t> Width(const Json& config, const std::string& origin, Family family) {
  KVC_CHECK(family != Family::kSmolLm3 || !GetBool(config, "use_sliding_window", origin, false),
            kUnsupported, "{}: use_sliding_window: expected false in a model of type {}, got true",
            origin, FamilyName(family));
  const bool windows = family == Family::kMistral ||
                       (IsQwen(family) && GetBool(config, "use_sliding_window", origin, false));
  if (!windows) return std::nullopt;
  // Absent and null differ.
  if (!config.contains("sliding_window")) return kDefaultWindow;
  if (FindSet(config, "sliding_window") == nullptr) return std::nullopt;
  return GetSize(config, "sliding_window", origin);
}

// layer_types as flags: true for a layer that slides.
std::vector<bool> ReadLayerTypes(const Json& config,
                                 const std::string& origin,
                                 const ModelConfig& model) {
  std::vector<bool> slides;
  for (const Json& type : GetArray(config, "layer_types", origin)) {
    const std::string name = type.is_string() ? type.get<std::string>() : type.dump();
    const bool sliding = name == "sliding_attention";
    // "attention" is what transformers 4 wrote.
    KVC_CHECK(sliding || name == "full_attention" || name == "attention", kUnsupported,
              "{}: layer_types: expected full_attention or sliding_attention, got {}", origin,
              name);
    slides.push_back(sliding);
  }
  KVC_CHECK(static_cast<int64_t>(slides.size()) == model.num_layers, kBadInput,
            "{}: layer_types: expected num_hidden_layers = {} entries, got {}", origin,
            model.num_layers, slides.size());
  return slides;
}

// Which layers have the window where layer_types does not say it.
std::vector<bool> SlidingLayers(const Json& config,
                                const std::string& origin,
                                const ModelConfig& model,
                                bool windows) {
  std::vector<bool> slides(static_cast<size_t>(model.num_layers), windows);
  if (!IsQwen(model.family)) return slides;
  const int64_t full = GetInt(config, "max_window_layers", origin, kDefaultWindowedLayers);
  for (size_t layer = 0; layer < slides.size(); ++layer) {
    slides[layer] = windows && static_cast<int64_t>(layer) >= full;
  }
  return slides;
}

}  // namespace

void ParseWindows(const Json& config, const std::string& origin, ModelConfig& model) {
  const std::optional<int64_t> width = Width(config, origin, model.family);
  const std::vector<bool> slides = FindSet(config, "layer_types") != nullptr
                                       ? ReadLayerTypes(config, origin, model)
                                       : SlidingLayers(config, origin, model, width.has_value());
  for (size_t layer = 0; layer < slides.size(); ++layer) {
    if (!slides[layer]) continue;
    KVC_CHECK(model.family == Family::kMistral || IsQwen(model.family), kUnsupported,
              "{}: layer_types: expected full_attention in a model of type {}, got "
              "sliding_attention in layer {}",
              origin, FamilyName(model.family), layer);
    KVC_CHECK(width.has_value(), kBadInput,
              "{}: layer_types: expected sliding_window{} for the sliding layer {}, got none",
              origin, IsQwen(model.family) ? " and use_sliding_window" : "", layer);
    model.attention.resize(slides.size());
    model.attention[layer].window = width;
  }
}

void NarrowWindows(int64_t tokens, ModelConfig& model) {
  for (LayerAttention& layer : model.attention) {
    if (layer.window) layer.window = std::min(*layer.window, tokens);
  }
}

}  // namespace kvc
