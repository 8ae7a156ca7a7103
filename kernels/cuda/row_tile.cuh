#pragma once
// Tiles of cached rows in shared memory, as kernels multiply them: kRows rows of kWidth columns of
// the type that they are multiplied in.
//
// Rows that lie in whole chunks of 16 bytes, in that type, are copied behind the threads' backs;
// all others are loaded, decoded and stored. Columns behind a row's width, up to the next multiple
// of 16, and rows outside the visible ones are zeros.

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/row_decoders.cuh"

namespace kvc::cuda {

// Rows begin .. end - 1 of a sequence.
struct RowRange {
  int begin;
  int end;
};

// Elements of 16 bits that keep their type, read one by one.
template <class T>
struct ElementReader {
  const char* data;
  int64_t stride;
  int width;

  __device__ __forceinline__ explicit ElementReader(const CachedRows& rows)
      : data(static_cast<const char*>(rows.data)), stride(rows.stride), width(rows.width) {}
  __device__ __forceinline__ void Load(int row, int d, T (&x)[kPerChunk<T>]) const {
    const T* from = reinterpret_cast<const T*>(data + row * stride) + d;
#pragma unroll
    for (int i = 0; i < kPerChunk<T>; ++i) {
      x[i] = d + i < width ? from[i] : FromFloat<T>(0.0F);
    }
  }
};

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

  // Sets two elements of 16 bits: `column`, which is even, and the next.
  __device__ __forceinline__ void StorePair(int row, int column, uint32_t pair) {
    static_assert(sizeof(Element) == 2, "pairs of 16 bits");
    reinterpret_cast<uint32_t*>(chunks + Index(row, column / 8))[column % 8 / 2] = pair;
  }

  // Starts to fill the tile with the rows that follow `row`, and their columns from `column`, a
  // multiple of 16, on, by all of the block's threads. It is complete after WaitCopies and
  // SyncBlock.
  __device__ __forceinline__ void Fill(const CachedRows& rows,
                                       int row,
                                       const RowRange& visible,
                                       int column = 0) {
    if (InChunks(rows)) {
      Copy(rows, row, visible, column);
    } else if constexpr (sizeof(Element) == sizeof(float)) {
      WithDecoder(rows, [&](const auto& decoder) { Decode(decoder, row, visible, column); });
    } else {
      Decode(ElementReader<Element>(rows), row, visible, column);
    }
  }

 private:
  // Number i of the tile's chunks that hold columns of a row, in the order of rows.
  struct Chunks {
    int used;        // of a row
    int reciprocal;  // i / used, exact for i < 1024

    __device__ __forceinline__ explicit Chunks(int columns)
        : used((min(columns, kWidth) + 15) / 16 * 16 / kPerChunk<Element>),
          reciprocal(65536 / used + 1) {}
    __device__ __forceinline__ int Count() const { return kRows * used; }
    __device__ __forceinline__ int RowOf(int i) const { return i * reciprocal >> 16; }
  };

  __device__ static __forceinline__ int Index(int row, int chunk) {
    return row * kPerRow + (chunk ^ (row & 7));
  }
  __device__ static __forceinline__ bool Sees(const RowRange& visible, int row) {
    return row >= visible.begin && row < visible.end;
  }
  __device__ static __forceinline__ bool InChunks(const CachedRows& rows) {
    constexpr bool kFloats = sizeof(Element) == sizeof(float);
    return (!kFloats || rows.code == RowCode::kF32) && rows.width % kPerChunk<Element> == 0 &&
           (reinterpret_cast<uintptr_t>(rows.data) | static_cast<uintptr_t>(rows.stride)) % 16 == 0;
  }

  __device__ __forceinline__ void Copy(const CachedRows& rows,
                                       int row,
                                       const RowRange& visible,
                                       int column) {
    const auto* data = static_cast<const char*>(rows.data);
    const Chunks all(rows.width - column);
    for (int i = static_cast<int>(threadIdx.x); i < all.Count();
         i += static_cast<int>(blockDim.x)) {
      const int r = all.RowOf(i);
      const int chunk = i - r * all.used;
      const int d = column + chunk * kPerChunk<Element>;
      const bool valid = Sees(visible, row + r) && d < rows.width;
      const char* from =
          valid ? data + (row + r) * rows.stride + d * static_cast<int>(sizeof(Element)) : data;
      CopyAsync16(chunks + Index(r, chunk), from, valid);
    }
  }

  // The loads of several chunks are under way before the first is stored.
  template <class Decoder>
  __device__ __forceinline__ void Decode(const Decoder& decoder,
                                         int row,
                                         const RowRange& visible,
                                         int column) {
    constexpr int kBatch = 2;
    const Chunks all(decoder.width - column);
    const int threads = static_cast<int>(blockDim.x);
    for (int first = static_cast<int>(threadIdx.x); first < all.Count();
         first += kBatch * threads) {
      Element x[kBatch][kPerChunk<Element>];
      int place[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        const int i = first + b * threads;
        const int r = all.RowOf(i);
        const int chunk = i - r * all.used;
        place[b] = i < all.Count() ? Index(r, chunk) : -1;
        const bool seen = i < all.Count() && Sees(visible, row + r);
        if (seen) {
          decoder.Load(row + r, column + chunk * kPerChunk<Element>, x[b]);
        }
#pragma unroll
        for (int j = 0; j < kPerChunk<Element>; ++j) {
          x[b][j] = seen ? x[b][j] : FromFloat<Element>(0.0F);
        }
      }
#pragma unroll
      for (int b = 0; b < kBatch; ++b) {
        if (place[b] >= 0) {
          uint4 chunk;
          memcpy(&chunk, x[b], sizeof(chunk));
          Store16(chunks + place[b], chunk);
        }
      }
    }
  }
};

}  // namespace kvc::cuda
