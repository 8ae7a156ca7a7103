// Mean and covariance of the queries of a prompt, before their rotation, and how a mean rotation
// turns them. Queries are dealt out in parts, whose sums are added in their order.

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/expected_passes.h"
#include "kernels/cuda/score_tile.cuh"

namespace kvc::cuda {
namespace {

constexpr int kPairs = kMostScoreWidth / 64;  // of a lane: (d, d + half), d = l, l + 32

// A part of the queries of one query head.
struct QueryPart {
  int h;
  int split;
  int begin;
  int end;

  // Blocks come as (part, query head), most_group heads for each part.
  __device__ __forceinline__ QueryPart(const ExpectedHead& head, int block, int most_group) {
    h = block % most_group;
    split = block / most_group;
    begin = split * head.split_queries;
    end = min(begin + head.split_queries, head.prompt.rows);
  }
  __device__ __forceinline__ bool IsThere(const ExpectedHead& head) const {
    return h < head.group && split < head.splits;
  }
};

// Query t of query head h before its rotation, a warp's lanes having pairs.
__device__ __forceinline__ void LoadUnrotated(
    const ExpectedHead& head, int h, int t, float (&x)[kPairs], float (&y)[kPairs]) {
  const int width = head.keys.width;
  const int half = (width + 1) / 2;
  const float* query = QueryAt(head.prompt, t, h);
#pragma unroll
  for (int c = 0; c < kPairs; ++c) {
    const int d = LaneIndex() + 32 * c;
    x[c] = d < half ? query[d] : 0.0F;
    y[c] = d + half < width ? query[d + half] : 0.0F;
    if (head.cos != nullptr && d < half) {
      const int64_t angle = static_cast<int64_t>(head.first_position + t) * half + d;
      Turn(head.cos[angle], -head.sin[angle], x[c], y[c]);
    }
  }
}

struct SumShared {
  double sums[kScoreWarps][kMostScoreWidth];
};

// A block for a part: the sums of its queries, warp after warp.
__global__ void __launch_bounds__(kScoreThreads)
    QuerySumKernel(const ExpectedCall call, int most_group) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const QueryPart part(head, static_cast<int>(blockIdx.x), most_group);
  if (!part.IsThere(head)) {
    return;
  }
  auto& shared = SharedMemory<SumShared>();
  const int width = head.keys.width;
  const int half = (width + 1) / 2;
  double x_sum[kPairs] = {};
  double y_sum[kPairs] = {};
  for (int t = part.begin + WarpIndex(); t < part.end; t += kScoreWarps) {
    float x[kPairs];
    float y[kPairs];
    LoadUnrotated(head, part.h, t, x, y);
#pragma unroll
    for (int c = 0; c < kPairs; ++c) {
      x_sum[c] += static_cast<double>(x[c]);
      y_sum[c] += static_cast<double>(y[c]);
    }
  }
#pragma unroll
  for (int c = 0; c < kPairs; ++c) {
    const int d = LaneIndex() + 32 * c;
    if (d < half) {
      shared.sums[WarpIndex()][d] = x_sum[c];
    }
    if (d + half < width) {
      shared.sums[WarpIndex()][d + half] = y_sum[c];
    }
  }
  SyncBlock();  // all warps' are there
  auto* sums = reinterpret_cast<double*>(call.scratch + head.scratch.sums);
  const int d = static_cast<int>(threadIdx.x);
  if (d < width) {
    double total = 0.0;
#pragma unroll
    for (int w = 0; w < kScoreWarps; ++w) {
      total += shared.sums[w][d];
    }
    sums[static_cast<int64_t>(part.split * head.group + part.h) * width + d] = total;
  }
}

// A block for a query head: the mean over all parts.
__global__ void __launch_bounds__(kMostScoreWidth) QueryMeanKernel(const ExpectedCall call) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int h = static_cast<int>(blockIdx.x);
  const int width = head.keys.width;
  const int d = static_cast<int>(threadIdx.x);
  if (h >= head.group || d >= width) {
    return;
  }
  const auto* sums = reinterpret_cast<const double*>(call.scratch + head.scratch.sums);
  double total = 0.0;
  for (int k = 0; k < head.splits; ++k) {
    total += sums[static_cast<int64_t>(k * head.group + h) * width + d];
  }
  call.scratch[head.scratch.means + h * width + d] =
      static_cast<float>(total / static_cast<double>(head.prompt.rows));
}

struct ProductShared {
  ScoreTile<kTileEdge> rows;     // 64 of the dimensions of 64 queries, transposed
  ScoreTile<kTileEdge> columns;  // 64 others, or the same
};

// Queries t .. t + 63 of a part without their mean, transposed: the dimensions from `rows` on and
// those from `columns` on.
__device__ __forceinline__ void LoadCentred(const ExpectedCall& call,
                                            const ExpectedHead& head,
                                            const QueryPart& part,
                                            int first,
                                            int rows,
                                            int columns,
                                            ProductShared& shared) {
  const int width = head.keys.width;
  const int half = (width + 1) / 2;
  const float* mean = call.scratch + head.scratch.means + part.h * width;
  for (int t = WarpIndex(); t < kTileEdge; t += kScoreWarps) {
    float value[2][kPairs] = {};
    const bool valid = first + t < part.end;
    if (valid) {
      LoadUnrotated(head, part.h, first + t, value[0], value[1]);
    }
#pragma unroll
    for (int c = 0; c < kPairs; ++c) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const int d = LaneIndex() + 32 * c + side * half;
        if (LaneIndex() + 32 * c >= half || d >= width) {
          continue;
        }
        const float x = valid ? value[side][c] - mean[d] : 0.0F;
        if (d >= rows && d < rows + kTileEdge) {
          shared.rows[d - rows][t] = x;
        }
        if (d >= columns && d < columns + kTileEdge) {
          shared.columns[d - columns][t] = x;
        }
      }
    }
  }
}

// A block for a part and 64 by 64 of its products.
__global__ void __launch_bounds__(kScoreThreads, kScoreBlocksHint)
    QueryProductKernel(const ExpectedCall call, int most_group, int tiles) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int tile = static_cast<int>(blockIdx.x) % (tiles * tiles);
  const QueryPart part(head, static_cast<int>(blockIdx.x) / (tiles * tiles), most_group);
  const int rows = tile / tiles * kTileEdge;
  const int columns = tile % tiles * kTileEdge;
  const int width = head.keys.width;
  if (!part.IsThere(head) || rows >= width || columns >= width) {
    return;
  }
  auto& shared = SharedMemory<ProductShared>();
  // Dimensions beyond the last stay zero.
  for (int i = static_cast<int>(threadIdx.x); i < kTileEdge * kTileEdge; i += kScoreThreads) {
    shared.rows[i / kTileEdge][i % kTileEdge] = 0.0F;
    shared.columns[i / kTileEdge][i % kTileEdge] = 0.0F;
  }
  float sum[4][4] = {};
  for (int first = part.begin; first < part.end; first += kTileEdge) {
    SyncBlock();  // the queries before have been read
    LoadCentred(call, head, part, first, rows, columns, shared);
    SyncBlock();  // these are there
    float c[4][4];
    Products<kTileEdge>(shared.rows, shared.columns, kTileEdge, c);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        sum[i][j] += c[i][j];
      }
    }
  }
  float* products = call.scratch + head.scratch.products +
                    static_cast<int64_t>(part.split * head.group + part.h) * width * width;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int row = rows + TileY() + 16 * i;
      const int column = columns + TileX() + 16 * j;
      if (row < width && column < width) {
        products[row * width + column] = sum[i][j];
      }
    }
  }
}

// What the mean rotation of a pair is; identity where there is none.
struct PairTurn {
  float cos = 1.0F;
  float sin = 0.0F;

  __device__ __forceinline__ PairTurn(const ExpectedHead& head, int d) {
    if (head.mean_cos != nullptr) {
      cos = head.mean_cos[d];
      sin = head.mean_sin[d];
    }
  }
};

// The covariance at [row, column] over all parts; 0 beyond the width.
__device__ __forceinline__ float CovarianceAt(
    const ExpectedCall& call, const ExpectedHead& head, int h, int row, int column) {
  const int width = head.keys.width;
  if (row >= width || column >= width) {
    return 0.0F;
  }
  float total = 0.0F;
  for (int k = 0; k < head.splits; ++k) {
    total += call.scratch[head.scratch.products +
                          static_cast<int64_t>(k * head.group + h) * width * width + row * width +
                          column];
  }
  return total / static_cast<float>(head.prompt.rows);
}

// A thread for a pair of rows and a pair of columns of S' = Rbar S Rbar^T, and those of the first
// columns for mu' = Rbar mu.
__global__ void __launch_bounds__(kElementThreads) TurnKernel(const ExpectedCall call) {
  const ExpectedHead& head = call.heads[blockIdx.y];
  const int width = head.keys.width;
  const int half = (width + 1) / 2;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int column = static_cast<int>(item % half);
  const int row = static_cast<int>(item / half % half);
  const int h = static_cast<int>(item / half / half);
  if (h >= head.group) {
    return;
  }
  const PairTurn left(head, row);
  if (column == 0) {
    const float* mean = call.scratch + head.scratch.means + h * width;
    float* linear = call.scratch + head.scratch.linear + h * width;
    float x = mean[row];
    float y = row + half < width ? mean[row + half] : 0.0F;
    Turn(left.cos, left.sin, x, y);
    linear[row] = x;
    if (row + half < width) {
      linear[row + half] = y;
    }
  }
  if (!call.covariance) {
    return;
  }
  const PairTurn right(head, column);
  float block[2][2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      block[i][j] = CovarianceAt(call, head, h, row + i * half, column + j * half);
    }
  }
  Turn(left.cos, left.sin, block[0][0], block[1][0]);
  Turn(left.cos, left.sin, block[0][1], block[1][1]);
  Turn(right.cos, right.sin, block[0][0], block[0][1]);
  Turn(right.cos, right.sin, block[1][0], block[1][1]);
  float* square = call.scratch + head.scratch.square + static_cast<int64_t>(h) * width * width;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (row + i * half < width && column + j * half < width) {
        square[(row + i * half) * width + column + j * half] = block[i][j];
      }
    }
  }
}

LaunchShape ShapeOf(
    const char* name, const ExpectedPlan& plan, unsigned blocks, unsigned threads, size_t shared) {
  LaunchShape shape(name, blocks, threads, shared);
  shape.blocks_y = static_cast<unsigned>(plan.heads.size());
  return shape;
}

}  // namespace

void FindQueryStatistics(const ExpectedPlan& plan, const ExpectedCall& call, StreamHandle stream) {
  const auto group = static_cast<unsigned>(plan.most_group);
  const auto parts = static_cast<unsigned>(plan.most_splits) * group;
  Launch(QuerySumKernel, ShapeOf("QuerySumKernel", plan, parts, kScoreThreads, sizeof(SumShared)),
         stream, call, plan.most_group);
  Launch(QueryMeanKernel, ShapeOf("QueryMeanKernel", plan, group, kMostScoreWidth, 0), stream,
         call);
  if (call.covariance) {
    const int tiles = plan.width / kTileEdge;
    Launch(QueryProductKernel,
           ShapeOf("QueryProductKernel", plan, parts * static_cast<unsigned>(tiles * tiles),
                   kScoreThreads, sizeof(ProductShared)),
           stream, call, plan.most_group, tiles);
  }
  const int64_t half = plan.width / 2;
  Launch(TurnKernel,
         ShapeOf("TurnKernel", plan, BlocksFor(group * half * half, kElementThreads),
                 kElementThreads, 0),
         stream, call);
}

}  // namespace kvc::cuda
