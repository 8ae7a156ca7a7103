#include "export/onnx/attention_masks.h"

#include <optional>
#include <set>

namespace kvc::onnx_export {
namespace {

// For each width of window the mask without the keys in front of the query's window.
void AddWindowMasks(const ModelConfig& config, GraphBuilder& graph) {
  std::set<int64_t> widths;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::optional<int64_t> window = config.window(layer);
    if (!window || !widths.insert(*window).second) continue;
    const std::string name = WindowMaskName(*window);
    graph.AddConstant({name + ".tokens", {}, {*window}});
    graph.Add("Sub", {"mask.query_column", name + ".tokens"}, name + ".before");  // [S, 1]
    graph.Add("Less", {name + ".before", "mask.key_slots"}, name + ".near");      // [S, T]
    graph.Add("And", {"mask", name + ".near"}, name);                             // [B, 1, S, T]
  }
}

}  // namespace

std::string WindowMaskName(int64_t window) { return "mask.window_" + std::to_string(window); }

void AddAttentionMasks(const ModelConfig& config, GraphBuilder& graph) {
  const Attribute axis_0{"axis", int64_t{0}, ""};
  graph.Add("Shape", {"input_ids"}, "mask.ids_shape");
  graph.Add("Gather", {"mask.ids_shape", "const.one"}, "mask.query_count", {axis_0});
  graph.Add("Shape", {"attention_mask"}, "mask.mask_shape");
  graph.Add("Gather", {"mask.mask_shape", "const.one"}, "mask.key_count", {axis_0});
  graph.Add("Sub", {"mask.key_count", "mask.query_count"}, "mask.past_count");
  graph.Add("Range", {"const.zero", "mask.key_count", "const.one"}, "mask.key_slots");
  graph.Add("Range", {"mask.past_count", "mask.key_count", "const.one"}, "mask.query_slots");
  graph.Add("Unsqueeze", {"mask.query_slots", "const.axis_1"}, "mask.query_column");
  graph.Add("GreaterOrEqual", {"mask.query_column", "mask.key_slots"}, "mask.causal");
  graph.Add("Equal", {"mask.query_column", "mask.key_slots"}, "mask.self");
  graph.AddCast("attention_mask", DType::kBool, "mask.valid");
  graph.Add("Unsqueeze", {"mask.valid", "const.axes_1_2"}, "mask.valid_keys");
  graph.Add("And", {"mask.causal", "mask.valid_keys"}, "mask.visible");
  graph.Add("Or", {"mask.visible", "mask.self"}, "mask");  // [B, 1, S, T]
  AddWindowMasks(config, graph);
  if (config.keys.layout == KeyLayout::kLatent) {
    graph.Add("CumSum", {"attention_mask", "const.one"}, "key_positions.count");
    graph.Add("Sub", {"key_positions.count", "const.one"}, "key_positions.previous");
    graph.Add("Max", {"key_positions.previous", "const.zero"}, "key_positions");  // [B, T]
  }
}

}  // namespace kvc::onnx_export
