#pragma once
// The type and shape of every value inside a graph. ONNX leaves them to the reader; engines that
// convert a graph node by node want ranks without inferring through model-local functions.

#include <vector>

#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Returns the outputs of all nodes in their order, without the graph's own outputs. Dimensions are
// numbers or the names of the graph's inputs: batch, sequence, past_sequence, total_sequence.
// Throws kInternal for an operator without a rule and for shapes that do not fit together.
[[nodiscard]] std::vector<ValueInfo> InferValues(const Graph& graph);

}  // namespace kvc::onnx_export
