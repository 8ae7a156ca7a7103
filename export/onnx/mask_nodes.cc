#include "export/onnx/mask_nodes.h"

#include <optional>
#include <set>

namespace kvc::onnx_export {
namespace {

void AddCausalMask(GraphBuilder& graph) {
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
}

// For each width of window the mask without the keys in front of the query's window. A padding
// query keeps itself: a row of a softmax needs one key.
void AddWindowMasks(const ModelConfig& config, GraphBuilder& graph) {
  graph.AddConstant({"const.axes_1_3", {2}, {1, 3}});
  graph.Add("Gather", {"key_positions.count", "mask.query_slots"}, "mask.query_tokens",
            {{"axis", int64_t{1}, ""}});  // [B, S]
  graph.Add("Unsqueeze", {"mask.query_tokens", "const.axes_1_3"},
            "mask.token_column");  // [B, 1, S, 1]
  graph.Add("Unsqueeze", {"key_positions.count", "const.axes_1_2"},
            "mask.key_tokens");  // [B, 1, 1, T]
  std::set<int64_t> widths;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::optional<int64_t> window = config.window(layer);
    if (!window || !widths.insert(*window).second) continue;
    const std::string name = WindowMaskName(*window);
    graph.AddConstant({name + ".tokens", {}, {*window}});
    graph.Add("Sub", {"mask.token_column", name + ".tokens"}, name + ".before");  // [B, 1, S, 1]
    graph.Add("Less", {name + ".before", "mask.key_tokens"}, name + ".near");     // [B, 1, S, T]
    graph.Add("And", {"mask.visible", name + ".near"}, name + ".visible");
    graph.Add("Or", {name + ".visible", "mask.self"}, name);
  }
}

}  // namespace

std::string WindowMaskName(int64_t window) { return "mask.window_" + std::to_string(window); }

void AddMasks(const ModelConfig& config, GraphBuilder& graph) {
  graph.AddConstant({"const.zero", {}, {0}});
  graph.AddConstant({"const.one", {}, {1}});
  graph.AddConstant({"const.axis_1", {1}, {1}});
  graph.AddConstant({"const.axes_1_2", {2}, {1, 2}});
  AddCausalMask(graph);
  const bool latent = config.keys.layout == KeyLayout::kLatent;
  if (latent || config.has_windows()) {
    graph.Add("CumSum", {"attention_mask", "const.one"}, "key_positions.count");  // [B, T]
  }
  if (config.has_windows()) AddWindowMasks(config, graph);
  if (!latent) return;
  graph.Add("Sub", {"key_positions.count", "const.one"}, "key_positions.previous");
  graph.Add("Max", {"key_positions.previous", "const.zero"}, "key_positions");  // [B, T]
}

}  // namespace kvc::onnx_export
