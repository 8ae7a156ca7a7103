#pragma once
// Attention of one new token (decode) or a chunk of tokens (prefill) over cached keys and values.
//
// Decode sees a cache group as a few dense segments (the tiers and the recent block); attention is
// permutation-invariant once positions are in the keys, so segments are merged by log-sum-exp and
// nothing is kept for single tokens. Keys and values are read once for all query heads of the
// group, in the cache's formats; sums are in float.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/row_format.h"
#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "kernels/rounding.h"

namespace kvc::kernels {

// Rows [rows, width] in one format. `width` may be less than what is stored: a prefix of every row.
struct RowBlock {
  const void* data = nullptr;
  RowFormat format = {};
  int64_t rows = 0;
  int64_t width = 0;
  int64_t stride = 0;    // bytes from one row to the next
  CodeSteps steps = {};  // [width] or more; only where the format needs them
};

// The rows of a rebuild B that are unit vectors: they copy an element of the latent and need no
// product. kvc-export chooses a latent's coordinates so that R of the rows are.
struct UnitRows {
  std::vector<int32_t>
      column;  // [D]: r where row d of B is the unit vector e_r, else -1; empty: none
  std::vector<float> others;  // [D - unit rows, R], in their order
};
[[nodiscard]] UnitRows FindUnitRows(ConstMatrixF b);

// How a latent becomes a key: k_d = rope(norm(sum_r c_r B[d, r] + bias_d)). kLatent only.
struct KeyRebuild {
  ConstMatrixF rebuild;                // B of this head [D, R]
  const float* bias = nullptr;         // [D] or null
  const float* norm_weight = nullptr;  // [D] or null: RMS norm after the rebuild (Qwen3)
  float norm_epsilon = 0.0F;
  ConstMatrixF cos, sin;  // [max_position, r/2] of the first r dimensions; no rows: no rotation
  UnitRows units;         // FindUnitRows(rebuild), or empty: every row is multiplied
};

// One dense piece of a kv head's cache. Its rows may be narrower than the head's queries and
// outputs: a prefix of their columns, as tiers keep them; what is missing counts as zero.
struct Segment {
  RowBlock keys;                       // thin width; with a rebuild, the latent's
  RowBlock values;                     // [rows, D_v]
  const int32_t* positions = nullptr;  // [rows]; only with a rebuild
};

// One kv head's work in a decode step.
struct DecodeHead {
  std::span<const Segment> segments;    // borrowed
  const KeyRebuild* rebuild = nullptr;  // null: keys enter the dot product as they are
  ConstMatrixF queries;                 // [H/G, D_k]: the group's query heads
  MatrixF outputs;                      // [H/G, D_v]
};

// outputs = softmax(scale * queries . keys) values for every head, heads and long segments spread
// over the pool. Heads may have any number of rows, but at least one. With a rebuild, keys are made
// a few tokens at a time in a buffer that stays in the cache and never written back; up to four
// neighbouring heads that keep the same tokens share their latents, if these are the same, and
// their angles. The split into parts depends on row counts only.
void DecodeAttention(std::span<const DecodeHead> heads, float scale, ThreadPool& pool);

// One kv head's work in a prefill chunk: queries at positions first .. first + T_c - 1 attend,
// causally, to keys 0 .. first + T_c - 1 of this sequence's working block; with a window (above 0)
// to the last `window` keys of those that each would see.
struct PrefillHead {
  RowBlock keys;                        // [first + T_c, width]
  RowBlock values;                      // [first + T_c, D_v]
  const KeyRebuild* rebuild = nullptr;  // positions are 0, 1, 2, ...
  std::vector<ConstMatrixF> queries;    // each query head of the group: [T_c, D_k]
  std::vector<MatrixF> outputs;         // [T_c, D_v]
};
void PrefillAttention(std::span<const PrefillHead> heads,
                      int64_t first,
                      float scale,
                      ThreadPool& pool,
                      int64_t window = 0,
                      InputRounding rounding = InputRounding::kNone);

// Keys of `rows` latents, or of prefixes of them, as they enter the dot product: keys [rows, D].
// For scorers.
void RebuildKeys(const RowBlock& latents,
                 std::span<const int32_t> positions,
                 const KeyRebuild& rebuild,
                 MatrixF keys);

}  // namespace kvc::kernels
