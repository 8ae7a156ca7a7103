#pragma once
// The inner parts of PrefillAttention, compiled for each instruction set. Internal to kernels/cpu.
//
// Keys go by in blocks of kKeyBlock. A block's keys (rebuilt where needed) and values are laid out
// in panels once, for all query rows of the chunk; then every strip of query rows adds the block
// to its running maximum, sum and output (online softmax).

#include <cstdint>

#include "kernels/attention.h"

namespace kvc::kernels {

constexpr int64_t kKeyTile = 192;            // keys of one product: their panels fit the L2 cache
constexpr int64_t kKeyBlock = 5 * kKeyTile;  // keys laid out at a time
constexpr int64_t kQueryRows = 48;           // query rows of a part, of each head of the group
constexpr int64_t kWidestPanel = 32;         // columns are padded to this

constexpr int64_t PaddedWidth(int64_t width) {
  return (width + kWidestPanel - 1) / kWidestPanel * kWidestPanel;
}

// Where a head's block lies: keys [kKeyBlock / kKeyTile] tiles of [panels, D_k, panel columns],
// values the same number of tiles of [panels, kKeyTile, panel columns].
struct KeyBlock {
  float* keys = nullptr;    // [kKeyBlock * D_k]
  float* values = nullptr;  // [kKeyBlock * PaddedWidth(D_v)]
  int64_t first = 0;        // position of its first key
  bool starts = true;       // the first block of the chunk: results begin with it
};

// What the query rows of a chunk have in common.
struct ChunkQueries {
  int64_t first = 0;   // position of the first row
  int64_t window = 0;  // keys that a row sees, its own among them; 0: all before it
  float scale = 0.0F;
};

// Fills tile `tile` of a block from rows block.first + tile * kKeyTile ...
void LayOutTile(const PrefillHead& head, const KeyBlock& block, int64_t tile);

// Adds the block to the running results of query rows begin .. end - 1 (<= kQueryRows) of every
// query head of the group; position of row t: queries.first + t. states [heads of the group, T_c,
// 2]: maximum and sum. The block that holds a row's own key finishes the row.
void AccumulateBlock(const PrefillHead& head,
                     const KeyBlock& block,
                     const ChunkQueries& queries,
                     int64_t begin,
                     int64_t end,
                     float* states);

}  // namespace kvc::kernels
