#pragma once
// Number of rows of each group: the budget, spread again by the scores of a prompt if the method
// asks for it (Ada-KV [AdaKV] within a layer; kAdaModel over the model).

#include <cstdint>
#include <span>
#include <vector>

#include "runtime/cache/kv_cache.h"

namespace kvc::runtime {

// Ada-KV [AdaKV] computes the rows of each group of a layer. The rows beyond `fixed` (sinks, window
// and margin, which every group has) go to the highest scores of all groups together; then each
// group's count is mixed with its even budget, with share `safeguard`. scores: [n][candidates]; the
// sum of the rows stays that of `rows`.
inline constexpr double kAdaSafeguard = 0.2;
[[nodiscard]] std::vector<int64_t> AdaRows(std::span<const std::vector<float>> scores,
                                           std::span<const int64_t> rows,
                                           int64_t fixed,
                                           int64_t most,
                                           double safeguard = kAdaSafeguard);

// kAda: sets the shares of a layer's groups in its rows, from their scores of a prompt of `length`
// tokens. Does nothing with other methods.
void SpreadOverLayer(SequenceCache& cache,
                     int64_t layer,
                     int64_t length,
                     std::span<const GroupScores> scores);

// kAdaModel: sets the sequence's budget from the prompt_scores of all layers. One threshold decides
// how many rows each group gets, without a safeguard, because such scores are comparable.
void SpreadOverModel(SequenceCache& cache, int64_t length);

// Returns the rows [n] that each group's tiers are allocated for in a sequence of `length` tokens.
[[nodiscard]] std::vector<int64_t> TierRows(SequenceCache& cache, int64_t layer, int64_t length);

}  // namespace kvc::runtime
