#pragma once
// The form in which a role of the checkpoint is stored in the data file (docs/formats/onnx.md,
// "Initializers").

#include <cstdint>
#include <string>

#include "core/checkpoint/checkpoint.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Describes a role as a weight: in `dtype` for matrices, in float for vectors and for the factors
// that follow a projection (a latent's rebuild, the reductions of post-rope keys). Thin rows are
// padded with zeros to the layer's widest head.
[[nodiscard]] Weight DescribeWeight(
    const Checkpoint& checkpoint, const std::string& name, Role role, int64_t layer, DType dtype);

}  // namespace kvc::onnx_export
