#pragma once
// The com.kvc functions that make thin queries and keys before they enter the cache function.
// docs/formats/onnx.md, "Key functions", has their definitions.

#include <cstdint>
#include <string>
#include <vector>

#include "core/checkpoint/model_config.h"
#include "export/onnx/graph.h"

namespace kvc::onnx_export {

// Returns HeadProjection(input [B, S, heads*D], weight [G*R, D]) -> [B, S, heads*R], which
// multiplies every head by the matrix of its kv head (kPostRope).
[[nodiscard]] Function MakeProjectionFunction(const ModelConfig& config);
[[nodiscard]] Node MakeProjectionNode(const ModelConfig& config,
                                      const std::string& name,
                                      const std::string& input,
                                      const std::string& weight,
                                      int64_t heads);

// Returns PairRotation(input [B, S, heads*R], cos, sin [C, D/2], position_ids [B, S], pairs
// [heads*R/2]) -> [B, S, heads*R], which turns adjacent dimensions (2i, 2i+1) by the angle of pair
// pairs[i] (kRopePairs).
[[nodiscard]] Function MakePairFunction();
// `rows` names the rows of the tables: position_ids, or what RotationRows makes of them.
[[nodiscard]] Node MakePairNode(const std::string& name,
                                const std::string& input,
                                const std::string& rows,
                                const std::string& pairs);
// Returns the original context of a rotation whose frequencies depend on the length within the
// model's context (longrope); 0 for every other. Its tables hold a row for each position below it,
// for sequences that are no longer, and then one for each position of longer sequences.
[[nodiscard]] int64_t ShortContext(const ModelConfig& config);
// Returns RotationRows(position_ids [B, S], short_context []) -> [B, S]: the rows of such tables,
// position_ids + (max(position_ids) >= short_context) * short_context.
[[nodiscard]] Function MakeRowFunction();
// Returns the `pairs` of a layer's query heads (`heads` = H) or kv heads (G), padded with 0 to the
// stored width.
[[nodiscard]] std::vector<int64_t> StoredPairs(const ModelConfig& config,
                                               int64_t layer,
                                               int64_t heads);

}  // namespace kvc::onnx_export
