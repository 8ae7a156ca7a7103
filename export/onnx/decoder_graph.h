#pragma once
// The graph of a decoder checkpoint, as docs/formats/onnx.md defines it node by node.

#include "core/checkpoint/checkpoint.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Inputs, outputs, constants, weights (offsets not set), nodes and functions. Types
// other than float are cast to float before use.
[[nodiscard]] Graph BuildDecoderGraph(const Checkpoint& checkpoint, GraphTypes types);

}  // namespace kvc::onnx_export
