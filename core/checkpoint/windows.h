#pragma once
// The sliding windows that a config.json announces.

#include <string>

#include "core/checkpoint/model_config.h"
#include "core/io/json_fwd.h"

namespace kvc {

// Fills attention[layer].window of a model whose family, sizes and number of layers are known, as
// transformers 5 does:
//   mistral         sliding_window (absent: 4096; null: none), in all layers
//   qwen2, qwen3    sliding_window (absent: 4096), if use_sliding_window, in the layers from
//                   max_window_layers (absent: 28) on
// layer_types ("full_attention", "sliding_attention"), where the file has it, says which layers
// have the window, also in Mistral (transformers reads such a file as Ministral). Throws
// kUnsupported, naming the key, for a type of layer that is neither and for a window in a family
// without windows; kBadInput for a list of another length, or sliding layers without a window.
void ParseWindows(const Json& config, const std::string& origin, ModelConfig& model);

// Lets the layers with a window see at most `tokens` (1 or more): another model, for a test of
// windows that the test's texts would not reach.
void NarrowWindows(int64_t tokens, ModelConfig& model);

}  // namespace kvc
