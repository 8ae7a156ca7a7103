#pragma once
// Tiles of cached rows in shared memory, as prefill attention multiplies them: kRows rows of
// kWidth elements of the type that they are multiplied in.
//
// Rows that lie in whole chunks of 16 bytes, in that type, are copied behind the threads' backs;
// all others are loaded, decoded and stored. Columns behind a row's width, up to the next multiple
// of 16, and rows outside the visible ones are zeros.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/device.cuh"

namespace kvc::cuda {

// Rows begin .. end - 1 of a sequence.
struct RowRange {
  int begin;
  int end;
};

// Element d of a row, decoded. 16-bit tiles hold rows of their own type only.
template <class Element>
__device__ __forceinline__ Element ElementAt(RowCode /*code*/, const char* row, int d) {
  return reinterpret_cast<const Element*>(row)[d];
}
template <>
__device__ __forceinline__ float ElementAt<float>(RowCode code, const char* row, int d) {
  switch (code) {
    case RowCode::kBF16:
      return ToFloat(reinterpret_cast<const __nv_bfloat16*>(row)[d]);
    case RowCode::kF16:
      return ToFloat(reinterpret_cast<const __half*>(row)[d]);
    case RowCode::kInt8:
      return *reinterpret_cast<const float*>(row) *
             static_cast<float>(reinterpret_cast<const int8_t*>(row)[sizeof(float) + d]);
    default:
      return reinterpret_cast<const float*>(row)[d];
  }
}

template <class Element, int kTileRows, int kWidth>
struct RowTile {
  static constexpr int kRows = kTileRows;
  static constexpr int kPerRow = kWidth / kPerChunk<Element>;  // chunks
  uint4 chunks[kRows * kPerRow];

  // Chunks are swapped within a row, so that one chunk of eight consecutive rows, or of every other
  // one of them, falls on different banks.
  __device__ __forceinline__ const uint4* At(int row, int chunk) const {
    return chunks + Index(row, chunk);
  }

  // Starts to fill the tile with the rows that follow `row`, by all of the block's threads. It is
  // complete after WaitCopies and SyncBlock.
  __device__ __forceinline__ void Fill(const CachedRows& rows, int row, const RowRange& visible) {
    const auto* data = static_cast<const char*>(rows.data);
    const int used = (rows.width + 15) / 16 * 16 / kPerChunk<Element>;
    const int reciprocal = 65536 / used + 1;  // i / used, exact for i < 1024
    const bool whole = InChunks(rows);
    for (int i = static_cast<int>(threadIdx.x); i < kRows * used;
         i += static_cast<int>(blockDim.x)) {
      const int r = i * reciprocal >> 16;
      const int chunk = i - r * used;
      const int d = chunk * kPerChunk<Element>;
      const bool valid = row + r >= visible.begin && row + r < visible.end && d < rows.width;
      const char* from = data + (valid ? (row + r) * rows.stride : 0);
      uint4* to = chunks + Index(r, chunk);
      if (whole) {
        CopyAsync16(to, from + (valid ? chunk * 16 : 0), valid);
      } else {
        Store16(to, DecodeChunk(rows, from, valid ? d : rows.width));
      }
    }
  }

 private:
  __device__ static __forceinline__ int Index(int row, int chunk) {
    return row * kPerRow + (chunk ^ (row & 7));
  }

  __device__ static __forceinline__ bool InChunks(const CachedRows& rows) {
    constexpr bool kFloats = sizeof(Element) == sizeof(float);
    return (!kFloats || rows.code == RowCode::kF32) && rows.width % kPerChunk<Element> == 0 &&
           (reinterpret_cast<uintptr_t>(rows.data) | static_cast<uintptr_t>(rows.stride)) % 16 == 0;
  }

  // Elements d, d + 1, ... of a row; zeros from its width on.
  __device__ static __forceinline__ uint4 DecodeChunk(const CachedRows& rows,
                                                      const char* row,
                                                      int d) {
    Element x[kPerChunk<Element>];
#pragma unroll
    for (int i = 0; i < kPerChunk<Element>; ++i) {
      x[i] =
          d + i < rows.width ? ElementAt<Element>(rows.code, row, d + i) : FromFloat<Element>(0.0F);
    }
    uint4 chunk;
    memcpy(&chunk, x, sizeof(chunk));
    return chunk;
  }
};

}  // namespace kvc::cuda
