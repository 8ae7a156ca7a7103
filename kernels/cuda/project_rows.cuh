#pragma once
// Rows times a small matrix, and reflected rows: a warp has kRows rows, whose columns l, l + 32,
// ... lane l sums. Matrices and reflectors come through shared memory, kDepth of their rows at a
// time.

#include "kernels/cuda/project_rows.h"
#include "kernels/cuda/row_codec.cuh"

namespace kvc::cuda {

constexpr int kProjectWarps = 8;
constexpr int kProjectThreads = 32 * kProjectWarps;
constexpr int kProjectDepth = 32;
constexpr int kProjectPadding = 1;  // floats of a row: columns are written without conflicts
// Blocks of a multiprocessor: without it ptxas aims at more and spills.
template <int kWidth, int kRows>
constexpr int kProjectBlocks = kWidth* kRows > 1024 ? 1 : 2;

template <int kWidth, int kRows>
struct ProjectShared {
  float matrix[kProjectDepth][kWidth + kProjectPadding];
  float rows[kProjectWarps * kRows][kWidth];
};

// A matrix m [depth, columns] in memory as the products read it.
struct SmallMatrix {
  const float* data;
  int64_t stride;
  int depth;
  int columns;
  bool transposed;  // data holds m^T
  bool backwards;   // data holds the rows of m in reverse order
};

// Rows k .. k + kProjectDepth - 1 of m, zeros where there are none.
template <int kWidth>
__device__ __forceinline__ void LoadMatrix(const SmallMatrix& m,
                                           int k,
                                           float (&tile)[kProjectDepth][kWidth + kProjectPadding]) {
#pragma unroll 4
  for (int i = static_cast<int>(threadIdx.x); i < kProjectDepth * kWidth; i += kProjectThreads) {
    const int row = m.transposed ? i % kProjectDepth : i / kWidth;
    const int column = m.transposed ? i / kProjectDepth : i % kWidth;
    float x = 0.0F;
    if (k + row < m.depth && column < m.columns) {
      const int64_t at = m.backwards ? m.depth - 1 - (k + row) : k + row;
      x = m.transposed ? m.data[column * m.stride + at] : m.data[at * m.stride + column];
    }
    tile[row][column] = x;
  }
}

// y = x m for the rows of all warps; x [kRows][kWidth] of each warp lies in `rows`. Warps without
// rows (not `busy`) only help to load.
template <int kWidth, int kRows>
__device__ __forceinline__ void Multiply(const SmallMatrix& m,
                                         bool busy,
                                         ProjectShared<kWidth, kRows>& shared,
                                         float (&y)[kRows][kWidth / 32]) {
  const int lane = LaneIndex();
  float(*rows)[kWidth] = shared.rows + WarpIndex() * kRows;
  for (int k = 0; k < m.depth; k += kProjectDepth) {
    SyncBlock();  // the part before has been read
    LoadMatrix<kWidth>(m, k, shared.matrix);
    SyncBlock();  // this part is there
    for (int i = 0; busy && i < kProjectDepth; i += 4) {
      float x[kRows][4];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        Unpack<float>(Load16(&rows[r][k + i]), x[r]);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
#pragma unroll
        for (int c = 0; c < kWidth / 32; ++c) {
          const float column = shared.matrix[i + j][lane + 32 * c];
#pragma unroll
          for (int r = 0; r < kRows; ++r) {
            y[r][c] += x[r][j] * column;
          }
        }
      }
    }
  }
}

// x = x H_1 H_2 ..., u_i being the rows of m.
template <int kWidth, int kRows>
__device__ __forceinline__ void Reflect(const SmallMatrix& m,
                                        bool busy,
                                        ProjectShared<kWidth, kRows>& shared,
                                        float (&x)[kRows][kWidth / 32]) {
  const int lane = LaneIndex();
  for (int k = 0; k < m.depth; k += kProjectDepth) {
    SyncBlock();  // the reflectors before have been read
    LoadMatrix<kWidth>(m, k, shared.matrix);
    SyncBlock();  // these reflectors are there
    const int count = busy ? min(kProjectDepth, m.depth - k) : 0;
    for (int i = 0; i < count; ++i) {
      float u[kWidth / 32];
#pragma unroll
      for (int c = 0; c < kWidth / 32; ++c) {
        u[c] = shared.matrix[i][lane + 32 * c];
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        float dot = 0.0F;
#pragma unroll
        for (int c = 0; c < kWidth / 32; ++c) {
          dot += x[r][c] * u[c];
        }
        dot = WarpSum(dot);
#pragma unroll
        for (int c = 0; c < kWidth / 32; ++c) {
          x[r][c] -= dot * u[c];
        }
      }
    }
  }
}

// x += sign * mean
template <int kRows, int n>
__device__ __forceinline__ void AddMean(const float* mean,
                                        int width,
                                        float sign,
                                        float (&x)[kRows][n]) {
#pragma unroll
  for (int c = 0; c < n; ++c) {
    const int column = LaneIndex() + 32 * c;
    const float shift = column < width ? sign * mean[column] : 0.0F;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      x[r][c] += shift;
    }
  }
}

// x m, the rows of each warp going through shared memory.
template <int kWidth, int kRows>
__device__ __forceinline__ void Replace(const SmallMatrix& m,
                                        bool busy,
                                        ProjectShared<kWidth, kRows>& shared,
                                        float (&x)[kRows][kWidth / 32]) {
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int c = 0; c < kWidth / 32; ++c) {
      shared.rows[WarpIndex() * kRows + r][LaneIndex() + 32 * c] = x[r][c];
      x[r][c] = 0.0F;
    }
  }
  Multiply<kWidth, kRows>(m, busy, shared, x);  // meets the block before it reads
}

}  // namespace kvc::cuda
