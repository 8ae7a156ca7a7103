#pragma once
// Causal attention of a chunk of one sequence's tokens over its cached rows, on the device.
//
// The query of token t, 0 <= t < tokens, stands at position first + t; a row's number is its
// position. For each of the `group` query heads of a kv head
//
//   outputs[t] = softmax over the visible rows j of (scale * queries[t] . keys[j]) values[j]
//
// where j <= first + t, and j > first + t - window if there is a window. Keys may be thinner than
// values, and every head may have its own widths. One launch; what a call does in time is
// heads * ceil(tokens * group / 64) blocks, the longest first.
//
// Rows that are all bf16, or all f16, are multiplied on tensor cores, with queries and weights
// rounded to their type; any others as floats, to which they are decoded exactly. Sums are in
// float, softmax is online over tiles of rows that begin at fixed positions. So, as long as rows
// are finite, a token's outputs have the same bits however a sequence is cut into chunks. Rows that
// no query of a block sees are not read.
//
// Plain C++17: the kernel and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int kMostPrefillWidth = 128;  // of keys and of values

// One kv head of the layer.
struct PrefillHead {
  CachedRows keys;    // rows 0 .. first + tokens - 1, D_k wide
  CachedRows values;  // the same rows, D_v wide
  // Query head h of the group reads queries + h * query_head_stride, D_k floats for each token, and
  // writes outputs + h * output_head_stride, D_v floats. Tokens are a chunk's strides apart.
  const float* queries = nullptr;
  float* outputs = nullptr;
  int64_t query_head_stride = 0;
  int64_t output_head_stride = 0;
};

// What a launch must know of the heads, whose table lies on the device. It depends on widths and
// codes alone: it stays good when rows, queries or outputs move.
struct PrefillPlan {
  int32_t heads = 0;
  int32_t key_width = 0;          // of the widest head
  int32_t value_width = 0;        // of the widest head
  RowCode rows = RowCode::kBF16;  // how rows are multiplied: kBF16, kF16, or kF32 for all others
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
};

// `heads` [plan.heads] lies on the device. A chunk without tokens launches nothing. Nothing waits
// for the stream. Throws kBadShape for a chunk that cannot be.
void PrefillAttention(const PrefillHead* heads,
                      const PrefillPlan& plan,
                      const PrefillChunk& chunk,
                      StreamHandle stream);

}  // namespace kvc::cuda
