// A block makes 64 keys of one head: latents times matrix in float, by slices of 32 columns that
// are copied one ahead, into shared memory; then a warp takes a key at a time for bias, norm and
// rotation.

#include "core/base/error.h"
#include "kernels/cuda/rebuild_keys.h"
#include "kernels/cuda/row_codec.cuh"
#include "kernels/cuda/row_tile.cuh"

namespace kvc::cuda {
namespace {

constexpr int kRebuildWarps = 8;
constexpr int kThreads = 32 * kRebuildWarps;
constexpr int kBlocksHint = 2;  // of a multiprocessor
constexpr int kBlockKeys = 64;
constexpr int kSlice = 32;  // columns of latents and matrix
constexpr int kStages = 2;
// A thread's keys and dimensions are this far apart.
constexpr int kApart = 16;

template <int kWidth>
struct RebuildShared {
  RowTile<float, kBlockKeys, kSlice> latents[kStages];
  RowTile<float, kWidth, kSlice> matrix[kStages];
  // 16 more: two rows of half a warp each fall on different banks.
  float keys[kBlockKeys][kWidth + 16];
};

// Products of a thread: keys y + 16 i, dimensions x + 16 j for thread 16 y + x.
template <int kWidth>
struct Products {
  static constexpr int kKeys = kBlockKeys / kApart;
  static constexpr int kDims = kWidth / kApart;
  float sum[kKeys][kDims] = {};

  __device__ __forceinline__ void Add(const RebuildShared<kWidth>& shared, int stage, int columns) {
    const int x = static_cast<int>(threadIdx.x) % kApart;
    const int y = static_cast<int>(threadIdx.x) / kApart;
    for (int chunk = 0; 4 * chunk < columns; ++chunk) {
      float c[kKeys][4];
#pragma unroll
      for (int i = 0; i < kKeys; ++i) {
        Unpack<float>(Load16(shared.latents[stage].At(y + kApart * i, chunk)), c[i]);
      }
#pragma unroll
      for (int j = 0; j < kDims; ++j) {
        float b[4];
        Unpack<float>(Load16(shared.matrix[stage].At(x + kApart * j, chunk)), b);
#pragma unroll
        for (int i = 0; i < kKeys; ++i) {
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            sum[i][j] += c[i][e] * b[e];
          }
        }
      }
    }
  }

  __device__ __forceinline__ void Store(RebuildShared<kWidth>& shared) const {
    const int x = static_cast<int>(threadIdx.x) % kApart;
    const int y = static_cast<int>(threadIdx.x) / kApart;
#pragma unroll
    for (int i = 0; i < kKeys; ++i) {
#pragma unroll
      for (int j = 0; j < kDims; ++j) {
        shared.keys[y + kApart * i][x + kApart * j] = sum[i][j];
      }
    }
  }
};

// One key in shared memory, and what is still to be done to it.
struct RawKey {
  const float* product;  // [D]
  const float* bias;
  const float* norm_weight;
  float factor;  // of the norm

  __device__ __forceinline__ float Biased(int d) const {
    return product[d] + (bias != nullptr ? bias[d] : 0.0F);
  }
  __device__ __forceinline__ float Normed(int d) const {
    return norm_weight != nullptr ? Biased(d) * (factor * norm_weight[d]) : Biased(d);
  }
  // Dimension d, turned with its partner by the row's angles.
  __device__ __forceinline__ float Turned(int d,
                                          const float* cos,
                                          const float* sin,
                                          int half) const {
    if (d >= 2 * half) {
      return Normed(d);
    }
    const int j = d < half ? d : d - half;
    const float a = Normed(j);
    const float b = Normed(j + half);
    return d < half ? a * cos[j] - b * sin[j] : b * cos[j] + a * sin[j];
  }
};

// A warp's key: row `row` of the rebuild.
template <int kWidth>
__device__ __forceinline__ void FinishKey(const KeyRebuild& in, const float* product, int row) {
  constexpr int kColumns = kWidth / 32;  // of a lane
  const int lane = LaneIndex();
  const int width = in.keys.width;
  RawKey key = {product, in.bias, in.norm_weight, 0.0F};
  if (in.norm_weight != nullptr) {
    float squares = 0.0F;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const float x = lane + 32 * c < width ? key.Biased(lane + 32 * c) : 0.0F;
      squares += x * x;
    }
    key.factor = RSqrt(WarpSum(squares) / static_cast<float>(width) + in.norm_epsilon);
  }
  const int64_t position = in.positions != nullptr ? in.positions[row] : row;
  const float* cos = in.rotation.cos + position * in.rotation.half;
  const float* sin = in.rotation.sin + position * in.rotation.half;
  float x[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    const int d = lane + 32 * c;
    x[c] = d < width ? key.Turned(d, cos, sin, static_cast<int>(in.rotation.half)) : 0.0F;
  }
  StoreRow(in.keys, row, x);
}

template <int kWidth>
__global__ void __launch_bounds__(kThreads, kBlocksHint) RebuildKernel(const KeyRebuild* rebuilds) {
  auto& shared = SharedMemory<RebuildShared<kWidth>>();
  const KeyRebuild in = rebuilds[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kBlockKeys;
  const RowRange rows = {first, in.live != nullptr ? *in.live : in.rows};
  if (first >= rows.end) {
    return;
  }
  const int rank = in.latents.width;
  // Tiles take any rows; these are only read.
  const CachedRows matrix = {const_cast<float*>(in.matrix), RowCode::kF32, rank,
                             in.matrix_stride * static_cast<int64_t>(sizeof(float))};
  const RowRange dimensions = {0, in.keys.width};
  shared.latents[0].Fill(in.latents, first, rows);
  shared.matrix[0].Fill(matrix, 0, dimensions);
  CommitCopies();
  Products<kWidth> products;
  int stage = 0;
  for (int column = 0; column < rank; column += kSlice) {
    WaitCopies<0>();
    SyncBlock();  // the slice is complete, and the other stage has been read
    if (column + kSlice < rank) {
      shared.latents[stage ^ 1].Fill(in.latents, first, rows, column + kSlice);
      shared.matrix[stage ^ 1].Fill(matrix, 0, dimensions, column + kSlice);
      CommitCopies();
    }
    products.Add(shared, stage, min(rank - column, kSlice));
    stage ^= 1;
  }
  products.Store(shared);
  SyncBlock();  // all dimensions of the keys are there
  for (int k = WarpIndex(); k < kBlockKeys && first + k < rows.end; k += kRebuildWarps) {
    FinishKey<kWidth>(in, shared.keys[k], first + k);
  }
}

template <int kWidth>
void LaunchRebuild(const KeyRebuild* rebuilds,
                   int32_t count,
                   const RebuildSize& size,
                   StreamHandle stream) {
  const unsigned blocks = (static_cast<unsigned>(size.most_rows) + kBlockKeys - 1) / kBlockKeys;
  LaunchShape shape("RebuildKernel", blocks, kThreads, sizeof(RebuildShared<kWidth>));
  shape.blocks_y = static_cast<unsigned>(count);
  Launch(RebuildKernel<kWidth>, shape, stream, rebuilds);
}

}  // namespace

void RebuildKeys(const KeyRebuild* rebuilds,
                 int32_t count,
                 const RebuildSize& size,
                 StreamHandle stream) {
  constexpr int32_t kMostRebuilds = 0xffff;
  KVC_CHECK(count >= 0 && count <= kMostRebuilds, kBadShape,
            "key rebuild: expected 0 to {} rebuilds, got {}", kMostRebuilds, count);
  if (count == 0 || size.most_rows == 0) {
    return;
  }
  if (size.most_width <= 64) {
    LaunchRebuild<64>(rebuilds, count, size, stream);
  } else {
    LaunchRebuild<128>(rebuilds, count, size, stream);
  }
}

}  // namespace kvc::cuda
