#pragma once
// The reader of any rows (decode_rows.cuh): each segment's keys and values in a format of their
// own, of any width and at any address, on tensor cores. Codes of 8 bits are bf16 numbers, so tiles
// hold them as they are, with the scales of the rows beside them: a row's scale multiplies its
// score, or its weight. f16 and f32 rows are sums of two bf16 numbers, in two planes of a tile.
// Queries and weights are such sums too. A product is within 2^-15 of what it is in float.
//
// Codes with steps, with their halves (c - 2^(b-1) + 1/2), are bf16 numbers as well. The steps are
// those of a segment's columns: on entering it they multiply the queries and divide what has been
// summed of values so far, on leaving they multiply the sums, so that no row is multiplied by them.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/row_codec.cuh"
#include "kernels/cuda/row_decoders.cuh"
#include "kernels/cuda/split_pair.cuh"

namespace kvc::cuda {

// Tiles are a multiple of 8 dimensions wide; those beyond a row's width are zeros.
__device__ __forceinline__ int PaddedWidth(int width) { return (width + 7) / 8 * 8; }

// Rows of plain elements, whose scale is 1.
template <class T>
struct PlainRows : PlainDecoder<T> {
  using PlainDecoder<T>::PlainDecoder;
  __device__ __forceinline__ float ScaleOfRow(int /*row*/) const { return 1.0F; }
};

// Codes without their scale.
struct CodeRows {
  const char* data;
  int64_t stride;
  int width;

  __device__ __forceinline__ explicit CodeRows(const CachedRows& rows)
      : data(static_cast<const char*>(rows.data)), stride(rows.stride), width(rows.width) {}
  __device__ __forceinline__ float ScaleOfRow(int row) const {
    return *reinterpret_cast<const float*>(data + row * stride);
  }
  __device__ __forceinline__ void Load(int row, int d, float (&x)[4]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(data + row * stride);
    const uint32_t codes = d < width ? words[1 + d / 4] : 0;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const auto code = static_cast<int8_t>(codes >> (8 * j) & 0xffU);
      x[j] = d + j < width ? static_cast<float>(code) : 0.0F;
    }
  }
};

// Four codes of `bits` bits in the lowest bits of a word, with their halves; columns from `columns`
// on are zeros.
__device__ __forceinline__ void UnpackCodes(uint32_t codes, int bits, int columns, float (&x)[4]) {
  // 2^22 + n / 2, exact, has n in its low bits: no conversion instruction, which are slow.
  constexpr uint32_t kBase = 0x4a800000U;
  const float shift = -FloatOf(kBase) - static_cast<float>(1 << (bits - 1));
  const uint32_t mask = (1U << bits) - 1;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const uint32_t code = codes >> (j * bits) & mask;
    x[j] = j < columns ? FloatOf(kBase + 2 * code + 1) + shift : 0.0F;
  }
}

// Codes with steps without them. How many bits is the same for all lanes, so that three formats
// share their instructions.
struct StepCodeRows {
  const char* data;
  int64_t stride;
  int width;
  int bits;

  __device__ __forceinline__ explicit StepCodeRows(const CachedRows& rows)
      : data(static_cast<const char*>(rows.data)),
        stride(rows.stride),
        width(rows.width),
        bits(CodeBits(rows.code)) {}
  __device__ __forceinline__ float ScaleOfRow(int /*row*/) const { return 1.0F; }
  __device__ __forceinline__ void Load(int row, int d, float (&x)[4]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(data + row * stride);
    const int bit = d * bits;
    UnpackCodes(d < width ? words[bit / 32] >> (bit % 32) : 0, bits, width - d, x);
  }
};

// The same of a mixture. The eight columns that a lane takes at a time have their bits in common.
struct SpreadCodeRows {
  const CachedRows& rows;
  const char* data;
  int64_t stride;
  int width;
  int coded;  // columns with bits

  __device__ __forceinline__ explicit SpreadCodeRows(const CachedRows& of)
      : rows(of),
        data(static_cast<const char*>(of.data)),
        stride(of.stride),
        width(of.width),
        coded(min(of.width, static_cast<int>(of.ends[2]))) {}
  __device__ __forceinline__ float ScaleOfRow(int /*row*/) const { return 1.0F; }
  __device__ __forceinline__ void Load(int row, int d, float (&x)[4]) const {
    const auto* words = reinterpret_cast<const uint32_t*>(data + row * stride);
    const int bits = d < rows.ends[0] ? 8 : d < rows.ends[1] ? 4 : 2;
    const int bit = SpreadBit(rows, d);
    UnpackCodes(d < coded ? words[bit / 32] >> (bit % 32) : 0, bits, coded - d, x);
  }
};

// Queries times the steps of keys, as LoadQueryPairs has them.
template <int kSteps>
__device__ __forceinline__ void LoadQueriesInSteps(const DecodeHead& head,
                                                   const CachedRows& keys,
                                                   SplitPair (&pairs)[kSteps][2]) {
  const int g = LaneIndex() / 4;
  const int t = LaneIndex() % 4;
  const float* row = head.queries + static_cast<int64_t>(g) * head.query_stride;
  const int width = g < head.group ? keys.width : 0;
  const auto at = [&](int d) { return d < width ? row[d] * *StepOf(keys, d) : 0.0F; };
#pragma unroll
  for (int k = 0; k < kSteps; ++k) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int d = 16 * k + 8 * half + 2 * t;
      pairs[k][half] = SplitPair(at(d), at(d + 1));
    }
  }
}

// Sums o of values become multiples of the values' steps, or such multiples become numbers again.
template <bool kInto, int kSteps>
__device__ __forceinline__ void CountInSteps(const CachedRows& values, float (&o)[kSteps][4]) {
  if (values.steps == nullptr) {
    return;
  }
#pragma unroll
  for (int m = 0; m < kSteps; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int d = 16 * m + 8 * half + LaneIndex() / 4;
      const float step = d < values.width ? *StepOf(values, d) : 1.0F;
      const float factor = kInto ? 1.0F / step : step;
      o[m][2 * half] *= factor;
      o[m][2 * half + 1] *= factor;
    }
  }
}

// kPlanes: 1 for bf16 rows and codes alone, 2 for all formats.
template <int kWidth, int kPlanes>
struct MixedRows {
  using Element = __nv_bfloat16;
  static constexpr int kStages = 1;
  static constexpr int kBlocks = kWidth > 128 ? 1 : kPlanes == 1 ? 3 : 2;
  static constexpr int kSteps = kWidth / 16;
  static constexpr int kPlaneChunks = kTileRows * kWidth / 8;
  static constexpr int kScales = kPlanes * kPlaneChunks;  // the chunk where they begin
  static constexpr int kKeyChunks = kScales + kTileRows / 4;
  static constexpr int kValueChunks = kKeyChunks;
  struct QueryShared {};
  struct Queries {
    SplitPair pair[kSteps][2];
    bool in_steps;  // of the segment's keys
  };

  __device__ static __forceinline__ void CopyKeys(uint4* tile,
                                                  const CachedRows& rows,
                                                  int row,
                                                  int end) {
    Copy(tile, rows, row, end);
  }
  __device__ static __forceinline__ void CopyValues(uint4* tile,
                                                    const CachedRows& rows,
                                                    int row,
                                                    int end) {
    Copy(tile, rows, row, end);
  }
  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& /*shared*/,
                                                     Queries& queries) {
    LoadQueryPairs(head, queries.pair);
    queries.in_steps = false;
  }

  __device__ static __forceinline__ void Enter(const DecodeHead& head,
                                               const DecodeSegment& segment,
                                               Queries& queries,
                                               float (&o)[kSteps][4]) {
    if (segment.keys.steps != nullptr) {
      LoadQueriesInSteps(head, segment.keys, queries.pair);
      queries.in_steps = true;
    } else if (queries.in_steps) {
      LoadQueryPairs(head, queries.pair);
      queries.in_steps = false;
    }
    CountInSteps<true>(segment.values, o);
  }
  __device__ static __forceinline__ void Leave(const DecodeSegment& segment,
                                               float (&o)[kSteps][4]) {
    CountInSteps<false>(segment.values, o);
  }

  __device__ static __forceinline__ void Scores(const KeyTile& keys,
                                                const Queries& queries,
                                                float (&s)[4]) {
    const CachedRows& rows = keys.segment.keys;
    const int padded = PaddedWidth(rows.width);
    const TileLayout layout = LayoutOf<Element>(padded);
    const int lane = LaneIndex();
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (16 * k < padded) {
        const int chunk = min(2 * k + lane / 16, layout.chunks - 1);
        const uint4* at = keys.chunks + layout.At(lane % 16, chunk);
        const bool half = 16 * k + 8 >= padded;
        const SplitPair(&q)[2] = queries.pair[k];
        uint32_t a[4];
        LoadMatrices(a, at);
        if (half) {
          a[2] = a[3] = 0;  // the last 8 dimensions are not there
        }
        MultiplyAdd<Element>(s, a, {q[0].high, q[1].high});
        MultiplyAdd<Element>(s, a, {q[0].low, q[1].low});
        if (HasLow(rows)) {
          LoadMatrices(a, at + kPlaneChunks);
          if (half) {
            a[2] = a[3] = 0;
          }
          MultiplyAdd<Element>(s, a, {q[0].high, q[1].high});  // of the low plane
        }
      }
    }
    const auto* scales = reinterpret_cast<const float*>(keys.chunks + kScales);
    s[0] *= scales[lane / 4];
    s[1] *= scales[lane / 4];
    s[2] *= scales[lane / 4 + 8];
    s[3] *= scales[lane / 4 + 8];
  }

  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    const CachedRows& values,
                                                    const float (&p)[4]) {
    const int padded = PaddedWidth(values.width);
    const TileLayout layout = LayoutOf<Element>(padded);
    const int lane = LaneIndex();
    const auto* scales = reinterpret_cast<const float*>(tile + kScales);
    const SplitPair first(p[0] * scales[lane / 4], p[1] * scales[lane / 4]);
    const SplitPair second(p[2] * scales[lane / 4 + 8], p[3] * scales[lane / 4 + 8]);
    const uint32_t high[2] = {TransposeMatrix(first.high), TransposeMatrix(second.high)};
    const uint32_t low[2] = {TransposeMatrix(first.low), TransposeMatrix(second.low)};
#pragma unroll
    for (int m = 0; m < kSteps; ++m) {
      if (16 * m < padded) {
        const int chunk = min(2 * m + lane / 8 % 2, layout.chunks - 1);
        const uint4* at = tile + layout.At(lane % 8 + lane / 16 * 8, chunk);
        const bool half = 16 * m + 8 >= padded;
        uint32_t a[4];
        LoadMatricesTransposed(a, at);
        if (half) {
          a[1] = a[3] = 0;
        }
        MultiplyAdd<Element>(o[m], a, high);
        MultiplyAdd<Element>(o[m], a, low);
        if (HasLow(values)) {
          LoadMatricesTransposed(a, at + kPlaneChunks);
          if (half) {
            a[1] = a[3] = 0;
          }
          MultiplyAdd<Element>(o[m], a, high);  // of the low plane
        }
      }
    }
  }

 private:
  __device__ static __forceinline__ bool HasLow(const CachedRows& rows) {
    return kPlanes == 2 && (rows.code == RowCode::kF16 || rows.code == RowCode::kF32);
  }

  __device__ static __forceinline__ void Copy(uint4* tile,
                                              const CachedRows& rows,
                                              int row,
                                              int end) {
    if (rows.code == RowCode::kInt8) {
      return Fill<1>(tile, CodeRows(rows), row, end);
    }
    if (rows.code == RowCode::kSpread) {
      return Fill<1>(tile, SpreadCodeRows(rows), row, end);
    }
    if (IsInSteps(rows.code)) {
      return Fill<1>(tile, StepCodeRows(rows), row, end);
    }
    if constexpr (kPlanes == 2) {
      if (rows.code == RowCode::kF32) {
        return Fill<2>(tile, PlainRows<float>(rows), row, end);
      }
      if (rows.code == RowCode::kF16) {
        return Fill<2>(tile, PlainRows<__half>(rows), row, end);
      }
    }
    Fill<1>(tile, PlainRows<__nv_bfloat16>(rows), row, end);
  }

  // Stores 8 elements, and in another plane what they lose.
  template <int kUsed>
  __device__ static __forceinline__ void StoreChunk(uint4* to, const float (&x)[8]) {
    uint32_t high[4];
    [[maybe_unused]] uint32_t low[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if constexpr (kUsed == 1) {
        high[j] = Pack<Element>(x[2 * j], x[2 * j + 1]);  // exact
      } else {
        const SplitPair pair(x[2 * j], x[2 * j + 1]);
        high[j] = pair.high;
        low[j] = pair.low;
      }
    }
    Store16(to, {high[0], high[1], high[2], high[3]});
    if constexpr (kUsed == 2) {
      Store16(to + kPlaneChunks, {low[0], low[1], low[2], low[3]});
    }
  }

  // Brings rows row .. row + 15 and their scales; rows from `end` on become zeros. A lane takes
  // chunks of eight dimensions, with the loads of several under way.
  template <int kUsed, class Decoder>
  __device__ static __forceinline__ void Fill(uint4* tile,
                                              const Decoder& decoder,
                                              int row,
                                              int end) {
    constexpr int kBatch = 4;
    const int lane = LaneIndex();
    if (lane < kTileRows) {
      reinterpret_cast<float*>(tile + kScales)[lane] =
          row + lane < end ? decoder.ScaleOfRow(row + lane) : 0.0F;
    }
    const TileLayout layout = LayoutOf<Element>(PaddedWidth(decoder.width));
    const int total = kTileRows * layout.chunks;
    const int reciprocal = 65536 / layout.chunks + 1;  // i / chunks, exact for i < 1024
    for (int begin = lane; begin < total; begin += 32 * kBatch) {
      float x[kBatch][8];
      int place[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int i = begin + 32 * b;
        const int r = i * reciprocal >> 16;
        const int chunk = i - r * layout.chunks;
        place[b] = i < total ? layout.At(r, chunk) : -1;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          float part[4] = {};
          if (i < total && row + r < end) {
            decoder.Load(row + r, 8 * chunk + 4 * half, part);
          }
#pragma unroll
          for (int j = 0; j < 4; ++j) {
            x[b][4 * half + j] = part[j];
          }
        }
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (place[b] >= 0) {
          StoreChunk<kUsed>(tile + place[b], x[b]);
        }
      }
    }
  }
};

}  // namespace kvc::cuda
