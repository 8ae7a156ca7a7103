#pragma once
// The masks of a decoder's graph, and the positions of its cached keys.

#include <cstdint>
#include <string>

#include "core/checkpoint/model_config.h"
#include "export/onnx/graph_builder.h"

namespace kvc::onnx_export {

// Returns the name of the graph's mask for layers with this window.
[[nodiscard]] std::string WindowMaskName(int64_t window);

// Adds the nodes of docs/formats/onnx.md, "Masks", with the constants that they need: `mask` and a
// WindowMaskName(W) for each width of window, all [B, 1, S, T], true where query s sees slot t; for
// latents also `key_positions` [B, T].
//
// Slots are in the order of their tokens, so causality compares slots. A window counts tokens,
// which padding between a sequence and its next token (a batch padded on the right that goes on)
// sets apart from slots: it compares running counts of `attention_mask`.
void AddMasks(const ModelConfig& config, GraphBuilder& graph);

}  // namespace kvc::onnx_export
