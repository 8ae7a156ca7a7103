#pragma once
// The reader of bf16 rows and rows of codes (decode_rows.cuh), mixed, of any width and at any
// address, on tensor cores. Codes of 8 bits are bf16 numbers, so tiles hold them as they are, with
// the scales of the rows beside them: a row's scale multiplies its score, or its weight. Queries
// and weights are each the sum of two bf16 numbers, within 2^-17 of what they are.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/decode_any_rows.cuh"
#include "kernels/cuda/decode_rows.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/row_decoders.cuh"

namespace kvc::cuda {

// bf16 rows, whose scale is 1.
struct BrainRows : PlainDecoder<__nv_bfloat16> {
  using PlainDecoder<__nv_bfloat16>::PlainDecoder;
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

// Two floats as pairs of bf16 numbers: what they round to, and the rest.
struct SplitPair {
  uint32_t high;
  uint32_t low;

  SplitPair() = default;
  __device__ __forceinline__ SplitPair(float x, float y) {
    const float x_high = ToFloat(FromFloat<__nv_bfloat16>(x));
    const float y_high = ToFloat(FromFloat<__nv_bfloat16>(y));
    high = Pack<__nv_bfloat16>(x_high, y_high);
    low = Pack<__nv_bfloat16>(x - x_high, y - y_high);
  }
};

template <int kWidth>
struct MixedRows {
  using Element = __nv_bfloat16;
  static constexpr int kStages = 1;
  static constexpr int kBlocks = 3;
  static constexpr int kSteps = kWidth / 16;
  static constexpr int kScales = kTileRows * kWidth / 8;  // the chunk where they begin
  static constexpr int kTileChunks = kScales + kTileRows / 4;
  struct QueryShared {};
  struct Queries {
    SplitPair pair[kSteps][2];  // as MatrixRows has them
  };

  __device__ static __forceinline__ void Copy(uint4* tile,
                                              const CachedRows& rows,
                                              int row,
                                              int end) {
    if (rows.code == RowCode::kInt8) {
      Fill(tile, CodeRows(rows), row, end);
    } else {
      Fill(tile, BrainRows(rows), row, end);
    }
  }

  __device__ static __forceinline__ void LoadQueries(const DecodeHead& head,
                                                     QueryShared& /*shared*/,
                                                     Queries& queries) {
    const int g = LaneIndex() / 4;
    const int t = LaneIndex() % 4;
    const float* row = head.queries + static_cast<int64_t>(g) * head.query_stride;
    const int width = g < head.group ? head.query_width : 0;
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = 16 * k + 8 * half + 2 * t;
        queries.pair[k][half] =
            SplitPair(d < width ? row[d] : 0.0F, d + 1 < width ? row[d + 1] : 0.0F);
      }
    }
  }

  __device__ static __forceinline__ void Scores(const uint4* tile,
                                                int width,
                                                const Queries& queries,
                                                float (&s)[4]) {
    const int padded = PaddedWidth(width);
    const TileLayout layout = LayoutOf<Element>(padded);
    const int lane = LaneIndex();
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      if (16 * k < padded) {
        const int chunk = min(2 * k + lane / 16, layout.chunks - 1);
        uint32_t a[4];
        LoadMatrices(a, tile + layout.At(lane % 16, chunk));
        if (16 * k + 8 >= padded) {
          a[2] = a[3] = 0;  // the last 8 dimensions are not there
        }
        const SplitPair(&q)[2] = queries.pair[k];
        MultiplyAdd<Element>(s, a, {q[0].high, q[1].high});
        MultiplyAdd<Element>(s, a, {q[0].low, q[1].low});
      }
    }
    const auto* scales = reinterpret_cast<const float*>(tile + kScales);
    s[0] *= scales[lane / 4];
    s[1] *= scales[lane / 4];
    s[2] *= scales[lane / 4 + 8];
    s[3] *= scales[lane / 4 + 8];
  }

  __device__ static __forceinline__ void Accumulate(float (&o)[kSteps][4],
                                                    const uint4* tile,
                                                    int width,
                                                    const float (&p)[4]) {
    const int padded = PaddedWidth(width);
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
        uint32_t a[4];
        LoadMatricesTransposed(a, tile + layout.At(lane % 8 + lane / 16 * 8, chunk));
        if (16 * m + 8 >= padded) {
          a[1] = a[3] = 0;
        }
        MultiplyAdd<Element>(o[m], a, high);
        MultiplyAdd<Element>(o[m], a, low);
      }
    }
  }

 private:
  // Brings rows row .. row + 15 and their scales; rows from `end` on become zeros. A lane takes
  // chunks of eight dimensions, with the loads of several under way.
  template <class Decoder>
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
          StoreElements<8>(reinterpret_cast<Element*>(tile + place[b]), x[b]);
        }
      }
    }
  }
};

}  // namespace kvc::cuda
