#pragma once
// Attention of one new token of every sequence over ragged, tiered caches, on the device.
//
// A kv head of a sequence keeps a list of segments: dense rows of one width, narrower rows being a
// prefix of the wider ones' columns (what is missing counts as zero). For the head's query heads
//
//   outputs = softmax(scale * queries . keys) values
//
// Every head has its own number of rows. The rows are dealt out to blocks in equal shares of bytes,
// over all heads and sequences, so that long heads cost no more than short ones. Where several
// blocks work on a head, each leaves a partial result (maximum, sum, outputs), and the block that
// comes last merges them in the order of the rows: the result depends on the plan alone. One
// launch.
//
// Plain C++17: the kernel and the host include this.

#include <cstdint>
#include <vector>

#include "core/base/dtype.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int kDecodeQueries = 8;      // query heads of a kv head, at most
constexpr int kDecodeTileRows = 64;    // rows of a block's step
constexpr int kMostDecodeWidth = 128;  // of keys and of values

struct DecodeSegment {
  const void* keys = nullptr;    // [rows, key_width], 16-byte aligned
  const void* values = nullptr;  // [rows, value_width], 16-byte aligned
  int32_t rows = 0;
  int32_t key_width = 0;    // a multiple of 8, at most the head's query_width
  int32_t value_width = 0;  // a multiple of 8, at most the head's output_width
};

// One kv head of one sequence.
struct DecodeHead {
  const float* queries = nullptr;  // [group, query_width], rows query_stride apart
  float* outputs = nullptr;        // [group, output_width], rows output_stride apart
  int32_t query_stride = 0;
  int32_t output_stride = 0;
  int32_t group = 0;  // query heads, 1 to 8
  int32_t query_width = 0;
  int32_t output_width = 0;
  int32_t first_partial = 0;  // filled by PlanDecode
  int32_t partials = 0;       // 1: one block does all of it
};

// Rows begin .. end - 1 of a segment, the work of one block.
struct DecodePiece {
  int32_t head = 0;
  int32_t segment = 0;
  int32_t begin = 0;
  int32_t end = 0;
  int32_t partial = 0;  // of the head: which of its partial results this goes into
};

struct DecodePlan {
  std::vector<DecodeHead> heads;    // as given, with first_partial and partials
  std::vector<DecodePiece> pieces;  // in the order of heads, segments and rows
  std::vector<int32_t> first;  // [blocks + 1]: block b has the pieces first[b] .. first[b + 1] - 1
  int32_t partials = 0;        // of all heads
  int32_t width = 0;           // 64 or 128: what the widest head needs
};

// Deals out the rows to `blocks` blocks so that each has the same bytes to read, to within one
// tile. segment_first [heads + 1]: head h has the segments segment_first[h] .. segment_first[h + 1]
// - 1. A head without rows gets zeros. Throws kBadShape, kUnsupported (widths).
[[nodiscard]] DecodePlan PlanDecode(const std::vector<DecodeSegment>& segments,
                                    const std::vector<int32_t>& segment_first,
                                    const std::vector<DecodeHead>& heads,
                                    DType rows,
                                    int32_t blocks);

// The plan on the device.
struct DecodeArguments {
  const DecodeSegment* segments = nullptr;
  const DecodeHead* heads = nullptr;
  const DecodePiece* pieces = nullptr;
  const int32_t* first = nullptr;  // [blocks + 1]
  float* partials = nullptr;       // [partials, DecodePartialFloats(width)]
  int32_t* arrived = nullptr;      // [heads], zero before and after
  float scale = 0.0F;
};
[[nodiscard]] int64_t DecodePartialFloats(int32_t width);

// Rows of keys and values are of dtype `rows`: kBF16 and kF16 on tensor cores, with queries and
// weights rounded to it; kF32 in float. Sums in float. Nothing waits for the stream.
void DecodeAttention(
    const DecodeArguments& in, DType rows, int32_t width, int32_t blocks, StreamHandle stream);

}  // namespace kvc::cuda
