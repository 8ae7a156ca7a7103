#pragma once
// The values of the graph that say which keys a query sees, by the names under which the cache
// functions read them (docs/formats/onnx.md).

#include <cstdint>
#include <string>

#include "core/checkpoint/model_config.h"
#include "export/onnx/graph_builder.h"

namespace kvc::onnx_export {

// Returns the name of the graph's mask for layers with this window.
[[nodiscard]] std::string WindowMaskName(int64_t window);

// Adds `mask` [B, 1, S, T], true where a query sees a key, the same for each width of window that a
// layer has, and for latents `key_positions` [B, T]. The graph has input_ids, attention_mask and
// the constants const.zero, const.one, const.axis_1 and const.axes_1_2.
void AddAttentionMasks(const ModelConfig& config, GraphBuilder& graph);

}  // namespace kvc::onnx_export
