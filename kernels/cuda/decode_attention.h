#pragma once
// Attention of one new token of every sequence over ragged, tiered caches, on the device.
//
// A kv head of a sequence keeps a list of segments: rows of any width and format, narrower rows
// being a prefix of the wider ones' columns (what is missing counts as zero). For the head's query
// heads
//
//   outputs = softmax(scale * queries . keys) values
//
// Where a head's rows are latents, its keys are made of them on the way (latent_keys.h), tile by
// tile, and never stored.
//
// Every head has its own number of rows. The rows are dealt out to blocks in equal shares of bytes,
// over all heads and sequences, so that long heads cost no more than short ones. Where several
// blocks work on a head, each leaves a partial result (maximum, sum, outputs), and the block that
// comes last merges them in the order of the rows: the result depends on the plan and the rows
// alone. One launch. An element in fewer than six bits counts as one in six, which is about what
// unpacking it costs.
//
// Rows that grow. A segment may name the place on the device where its number of rows stands. The
// plan then covers as many rows as the segment may come to have, and each launch reads those that
// are there: a captured launch is replayed while rows are appended. A share whose rows are not
// there yet has nothing to do, so the shares of bytes are as equal as the plan's bound is close:
// plan anew every few hundred rows. A new plan of the same launch may be copied over the old one
// between replays (the bounds below say how much room each array needs).
//
// Plain C++17: the kernel and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/latent_keys.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

constexpr int kDecodeQueries = 8;      // query heads that read a row together
constexpr int kDecodeTileRows = 64;    // rows of a block's step
constexpr int kMostDecodeWidth = 256;  // of keys and of values

struct DecodeSegment {
  CachedRows keys;    // 1 to the head's query_width elements wide; latents: 1 to their rank
  CachedRows values;  // 1 to the head's output_width elements wide
  int32_t rows = 0;   // with `live`: the most that there will be
  // On the device, or null: the rows that are there, 0 to `rows`, read by each launch. Rows from
  // there on are not read; they need not be written.
  const int32_t* live = nullptr;
  // Of latents [rows] on the device, all within the rotation's tables, which nothing checks; null:
  // a row's number is its position.
  const int32_t* positions = nullptr;
};

// One kv head of one sequence.
struct DecodeHead {
  const float* queries = nullptr;  // [group, query_width], rows query_stride apart
  float* outputs = nullptr;        // [group, output_width], rows output_stride apart
  int32_t query_stride = 0;
  int32_t output_stride = 0;
  int32_t group = 0;  // query heads; in a plan at most kDecodeQueries
  int32_t query_width = 0;
  int32_t output_width = 0;
  int32_t first_partial = 0;  // filled by PlanDecode
  int32_t partials = 0;       // 1: one block does all of it
  LatentKeys latents;         // D = query_width; in a plan all heads have them, or none
};

// Rows begin .. end - 1 of a segment, the work of one block.
struct DecodePiece {
  int32_t head = 0;  // of the plan
  int32_t segment = 0;
  int32_t begin = 0;
  int32_t end = 0;
  int32_t partial = 0;  // of the head: which of its partial results this goes into
};

// How rows are read. Sums are in float.
enum class DecodeReader {
  // Rows of one format in whole chunks of 16 bytes. kF16 and kBF16 rows meet tensor cores, with
  // queries and weights rounded to them; kF32 rows are multiplied in float.
  kF32,
  kF16,
  kBF16,
  // Rows of any width and address on tensor cores, with queries and weights as sums of two bf16
  // numbers: bf16 and int8 rows and codes with steps, or rows of any formats, those of f16 and
  // f32 being such sums.
  kMixed,
  kAny,
  // Latents of any formats; values as kAny.
  kLatents,
};

// What a launch is, apart from the plan's arrays; a captured launch keeps it.
struct DecodeLaunch {
  DecodeReader reader = DecodeReader::kAny;
  int32_t width = 0;  // 64, 128 or 256: what the widest head needs
  int32_t blocks = 0;

  friend bool operator==(const DecodeLaunch& a, const DecodeLaunch& b) {
    return a.reader == b.reader && a.width == b.width && a.blocks == b.blocks;
  }
};

struct DecodePlan {
  // With first_partial and partials. A head of more than kDecodeQueries query heads is split into
  // several in its place, each of which reads the rows.
  std::vector<DecodeHead> heads;
  std::vector<DecodePiece> pieces;  // in the order of heads, segments and rows
  std::vector<int32_t> first;  // [blocks + 1]: block b has the pieces first[b] .. first[b + 1] - 1
  int32_t partials = 0;        // of all heads
  DecodeLaunch launch;
};

// Deals out the rows to `blocks` blocks so that each has the same bytes to read, to within one
// tile. segment_first [heads + 1]: head h has the segments segment_first[h] .. segment_first[h + 1]
// - 1. A head without rows gets zeros. The reader is kLatents where heads have latents; kF32, kF16
// or kBF16 where all rows, keys and values, are of that format and dense (stride = width * element
// bytes), begin at multiples of 16 bytes and have widths that are multiples of 8; else kMixed where
// all are bf16, int8 or codes with steps; else kAny. Above a width of 128 it is one of kBF16, kAny
// and kLatents. Throws kBadShape, kUnsupported (widths).
[[nodiscard]] DecodePlan PlanDecode(const std::vector<DecodeSegment>& segments,
                                    const std::vector<int32_t>& segment_first,
                                    const std::vector<DecodeHead>& heads,
                                    int32_t blocks);

// The most that plans with these numbers of plan heads, segments (of plan heads: a split head
// counts its segments again) and blocks can have.
[[nodiscard]] constexpr int64_t MostDecodePieces(int64_t heads, int64_t segments, int64_t blocks) {
  return heads + segments + blocks;
}
[[nodiscard]] constexpr int64_t MostDecodePartials(int64_t heads, int64_t blocks) {
  return heads + blocks;
}

// The plan on the device.
struct DecodeArguments {
  const DecodeSegment* segments = nullptr;
  const DecodeHead* heads = nullptr;
  const DecodePiece* pieces = nullptr;
  const int32_t* first = nullptr;  // [blocks + 1]
  float* partials = nullptr;       // [partials, DecodePartialFloats(width)]
  int32_t* arrived = nullptr;      // [plan heads], zero before and after
  float scale = 0.0F;
};
[[nodiscard]] int64_t DecodePartialFloats(int32_t width);

// Writes every head's outputs. Nothing waits for the stream.
void DecodeAttention(const DecodeArguments& in, const DecodeLaunch& launch, StreamHandle stream);

}  // namespace kvc::cuda
