#include <algorithm>

#include "core/base/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/attention_checks.h"
#include "kernels/cpu/prefill_part.h"
#include "kernels/cpu/rounded_prefill.h"
#include "kernels/cpu/scratch.h"

namespace kvc::kernels {
namespace {

constexpr int64_t kTilesPerBlock = kKeyBlock / kKeyTile;
// Fewer query rows than these are not worth laying out tiles of oneDNN.
constexpr int64_t kFewestRounded = 16;

// Sizes that all heads of one call share.
struct Chunk {
  int64_t first = 0;   // position of the first query row
  int64_t tokens = 0;  // T_c
  int64_t rows = 0;    // first + T_c keys
};

Chunk CheckHeads(std::span<const PrefillHead> heads, int64_t first) {
  KVC_CHECK(!heads[0].queries.empty(), kBadShape, "prefill attention: expected queries, got none");
  const Chunk chunk{first, heads[0].queries[0].rows, first + heads[0].queries[0].rows};
  for (const PrefillHead& head : heads) {
    KVC_CHECK(head.keys.rows == chunk.rows, kBadShape,
              "prefill attention: expected {} keys, got {}", chunk.rows, head.keys.rows);
    KVC_CHECK(!head.queries.empty() && head.queries.size() == head.outputs.size(), kBadShape,
              "prefill attention: expected as many outputs as queries, got {} and {}",
              head.outputs.size(), head.queries.size());
    const int64_t width = head.queries[0].cols;
    CheckRows(head.keys, head.values, head.rebuild, width, head.outputs[0].cols);
    for (size_t h = 0; h < head.queries.size(); ++h) {
      const bool fits = head.queries[h].rows == chunk.tokens && head.queries[h].cols == width &&
                        head.outputs[h].rows == chunk.tokens &&
                        head.outputs[h].cols == head.values.width &&
                        (head.rebuild != nullptr || head.keys.width == width);
      KVC_CHECK(fits, kBadShape,
                "prefill attention: expected query heads of one size, as wide as keys and values; "
                "check the layer's sizes");
    }
  }
  return chunk;
}

// Buffers for one block of keys of every head, and states of every query row.
struct Buffers {
  std::vector<KeyBlock> blocks;
  std::vector<float*> states;
};

Buffers MakeBuffers(std::span<const PrefillHead> heads, const Chunk& chunk) {
  int64_t keys = 0;
  int64_t values = 0;
  int64_t states = 0;
  for (const PrefillHead& head : heads) {
    keys += kKeyBlock * head.queries[0].cols;
    values += kKeyBlock * PaddedWidth(head.values.width);
    states += 2 * chunk.tokens * static_cast<int64_t>(head.queries.size());
  }
  float* next_keys = Scratch(ScratchUse::kPrefillKeys, keys);
  float* next_values = Scratch(ScratchUse::kPrefillValues, values);
  float* next_states = Scratch(ScratchUse::kPrefillStates, states);
  Buffers buffers;
  for (const PrefillHead& head : heads) {
    buffers.blocks.push_back({next_keys, next_values, 0, true});
    buffers.states.push_back(next_states);
    next_keys += kKeyBlock * head.queries[0].cols;
    next_values += kKeyBlock * PaddedWidth(head.values.width);
    next_states += 2 * chunk.tokens * static_cast<int64_t>(head.queries.size());
  }
  return buffers;
}

}  // namespace

void PrefillAttention(std::span<const PrefillHead> heads,
                      int64_t first,
                      float scale,
                      ThreadPool& pool,
                      int64_t window,
                      InputRounding rounding) {
  if (heads.empty()) {
    return;
  }
  KVC_CHECK(window >= 0, kBadShape, "prefill attention: expected a window of 0 or more, got {}",
            window);
  const Chunk chunk = CheckHeads(heads, first);
  if (rounding == InputRounding::kToBF16 && chunk.tokens >= kFewestRounded &&
      RoundedPrefillAttention(heads, first, scale, pool, window)) {
    return;
  }
  // No query sees the keys of tiles in front of this one.
  const int64_t begin =
      window > 0 ? std::max<int64_t>(0, first - window + 1) / kKeyTile * kKeyTile : 0;
  const auto num_heads = static_cast<int64_t>(heads.size());
  const int64_t query_parts = (chunk.tokens + kQueryRows - 1) / kQueryRows;
  Buffers buffers = MakeBuffers(heads, chunk);
  const ChunkQueries queries = {first, window, scale};
  for (int64_t block_first = begin; block_first < chunk.rows; block_first += kKeyBlock) {
    for (KeyBlock& block : buffers.blocks) {
      block.first = block_first;
      block.starts = block_first == begin;
    }
    const int64_t keys = std::min(kKeyBlock, chunk.rows - block_first);
    const int64_t tiles = (keys + kKeyTile - 1) / kKeyTile;
    pool.ParallelFor(num_heads * tiles, 1, [&](int64_t part, int64_t /*end*/) {
      const auto h = static_cast<size_t>(part / tiles);
      LayOutTile(heads[h], buffers.blocks[h], part % tiles);
    });
    // The last rows see the most keys: they come first, so that threads end together.
    pool.ParallelFor(num_heads * query_parts, 1, [&](int64_t part, int64_t /*end*/) {
      const auto h = static_cast<size_t>(part % num_heads);
      const int64_t row = (query_parts - 1 - part / num_heads) * kQueryRows;
      AccumulateBlock(heads[h], buffers.blocks[h], queries, row,
                      std::min(chunk.tokens, row + kQueryRows), buffers.states[h]);
    });
  }
}

}  // namespace kvc::kernels
