#pragma once
// Causal attention of a chunk of one sequence's tokens over its cached rows, on the device.
//
// The query of token t, 0 <= t < tokens, stands at position first + t; a row's number is its
// position. For each of the `group` query heads of a kv head
//
//   outputs[t] = softmax over the visible rows j of (scale * queries[t] . keys[j]) values[j]
//
// where j <= first + t, and j > first + t - window if there is a window. Keys may be thinner than
// values, and every head may have its own widths; where rows are latents, keys are made of them on
// the way (latent_keys.h), tile by tile, and never stored. One launch of
// heads * ceil(tokens * group / 64) * splits blocks, the longest first; twice as many for values
// wider than 128, whose columns are two blocks' work.
//
// Rows that are all bf16, or all f16, are multiplied on tensor cores, with queries and weights
// rounded to their type; any others as floats, to which they are decoded exactly. With latents
// the values' type decides, bf16 or any other, about the weights alone. Sums are in float, softmax
// is online over tiles of rows that begin at fixed positions. So, as long as rows are finite and
// are not split, a token's outputs have the same bits however a sequence is cut into chunks. Rows
// that no query of a block sees are not read.
//
// Splits. Where few queries see many rows (a short chunk behind a long context), blocks that are
// given only parts of the rows fill the device: each leaves a partial result (maximum, sum,
// outputs), and the block that comes last merges them in the order of the rows. Outputs depend on
// the number of splits in their last bits, never on which block was quicker.
//
// Plain C++17: the kernel and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/latent_keys.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int kMostPrefillWidth = 256;  // of keys and of values
constexpr int kPrefillQueries = 64;     // rows of queries of a block
constexpr int kPrefillColumns = 128;    // of values, of a block at most

// One kv head of the layer.
struct PrefillHead {
  CachedRows keys;    // rows 0 .. first + tokens - 1, D_k wide; latents: 1 to their rank
  CachedRows values;  // the same rows, D_v wide
  // Query head h of the group reads queries + h * query_head_stride, D_k floats for each token, and
  // writes outputs + h * output_head_stride, D_v floats. Tokens are a chunk's strides apart.
  const float* queries = nullptr;
  float* outputs = nullptr;
  int64_t query_head_stride = 0;
  int64_t output_head_stride = 0;
  LatentKeys latents;  // D_k is then their width; in a plan all heads have them, or none
};

// What a launch must know of the heads, whose table lies on the device. It depends on widths and
// codes alone: it stays good when rows, queries or outputs move.
struct PrefillPlan {
  int32_t heads = 0;
  int32_t key_width = 0;          // of the widest head; places of latents
  int32_t value_width = 0;        // of the widest head
  RowCode rows = RowCode::kBF16;  // how rows are multiplied: kBF16, kF16, or kF32 for all others
                                  // and for f16 rows wider than 128
  bool latents = false;
};

// Throws kUnsupported for widths outside 1 .. kMostPrefillWidth, kBadShape for addresses or strides
// that do not fit the elements.
[[nodiscard]] PrefillPlan PlanPrefill(const std::vector<PrefillHead>& heads);

struct PrefillChunk {
  int32_t tokens = 0;
  int32_t first = 0;   // position of the first token
  int32_t group = 1;   // query heads of a kv head, any number
  int32_t window = 0;  // positions that a query sees, its own included; 0: all before it
  float scale = 0.0F;
  int64_t query_stride = 0;  // floats from a token to the next, for all heads
  int64_t output_stride = 0;
  int32_t splits = 1;  // parts of the rows
};

// Blocks that share the columns of a head's values.
[[nodiscard]] int32_t PrefillPasses(const PrefillPlan& plan);

// Room for the partial results of a launch with splits, on the device.
struct PrefillRoom {
  float* partials = nullptr;   // [PrefillRoomOf(...).floats]
  int32_t* arrived = nullptr;  // [PrefillRoomOf(...).counters], zero before and after
};
struct PrefillRoomSize {
  int64_t floats = 0;
  int64_t counters = 0;
};
// What a chunk with its splits needs; nothing for one split.
[[nodiscard]] PrefillRoomSize PrefillRoomOf(const PrefillPlan& plan, const PrefillChunk& chunk);

// How many splits give a device that runs `blocks` blocks at once enough of them: 1 where queries
// alone do, and never so many that a split has fewer than 256 rows.
[[nodiscard]] int32_t PrefillSplits(const PrefillPlan& plan,
                                    const PrefillChunk& chunk,
                                    int32_t blocks);

// `heads` [plan.heads] lies on the device. A chunk without tokens launches nothing. Nothing waits
// for the stream. `room` is for chunks with splits. Throws kBadShape for a chunk that cannot be.
void PrefillAttention(const PrefillHead* heads,
                      const PrefillPlan& plan,
                      const PrefillChunk& chunk,
                      const PrefillRoom& room,
                      StreamHandle stream);

}  // namespace kvc::cuda
