// A warp makes 16 keys of one head (latent_keys.cuh) in shared memory, then takes one at a time to
// encode it.

#include "core/base/error.h"
#include "kernels/cuda/latent_keys.cuh"
#include "kernels/cuda/rebuild_keys.h"
#include "kernels/cuda/row_codec.cuh"

namespace kvc::cuda {
namespace {

constexpr int kRebuildWarps = 4;
constexpr int kThreads = 32 * kRebuildWarps;
constexpr int kWarpKeys = 16;
constexpr int kBlockKeys = kRebuildWarps * kWarpKeys;
constexpr int kBlocksHint = 2;  // of a multiprocessor

struct RebuildShared {
  // 8 more, and Shift: dimensions d, d + 2, d + 4, d + 6 of eight rows fall on all 32 banks.
  float keys[kRebuildWarps][kWarpKeys][kMostRebuiltWidth + 8];
  float factors[kRebuildWarps][kWarpKeys];  // of the norm
};

// Where a row's dimension 0 lies.
__device__ __forceinline__ int Shift(int row) { return row / 4 % 2; }

__global__ void __launch_bounds__(kThreads, kBlocksHint) RebuildKernel(const KeyRebuild* rebuilds) {
  constexpr int kColumns = kMostRebuiltWidth / 32;  // of a lane
  auto& shared = SharedMemory<RebuildShared>();
  const KeyRebuild& in = rebuilds[blockIdx.y];
  const int end = in.live != nullptr ? *in.live : in.rows;
  const int first = static_cast<int>(blockIdx.x) * kBlockKeys + WarpIndex() * kWarpKeys;
  if (first >= end) {
    return;
  }
  auto& keys = shared.keys[WarpIndex()];
  float* factors = shared.factors[WarpIndex()];
  const int lane = LaneIndex();
  const int32_t* dimensions = DimensionsOf(in.how);
  const LatentTile tile = {in.latents, in.positions, first, {0, end}};
  KeyFinish finish(in.how, tile);
  RebuildTile(in.how, tile, 0, 1, finish, [&](int step, const float(&c)[2][4]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int d = dimensions[16 * step + i / 4 * 8 + 2 * (lane % 4) + i % 2];
      if (d >= 0) {
        const int row = lane / 4 + i % 4 / 2 * 8;
        keys[row][Shift(row) + d] = c[i / 4][i % 4];
      }
    }
  });
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const float squares = finish.Squares(r);
    if (lane % 4 == 0) {
      factors[lane / 4 + 8 * r] = in.how.norm_epsilon > 0.0F ? NormFactor(in.how, squares) : 1.0F;
    }
  }
  SyncWarp();  // all dimensions of the keys are there
  for (int k = 0; k < kWarpKeys && first + k < end; ++k) {
    float x[kColumns];
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      const int d = lane + 32 * c;
      x[c] = d < in.keys.width ? keys[k][Shift(k) + d] * factors[k] : 0.0F;
    }
    StoreRow(in.keys, first + k, x, nullptr);
  }
}

}  // namespace

void RebuildKeys(const KeyRebuild* rebuilds,
                 int32_t count,
                 int32_t most_rows,
                 StreamHandle stream) {
  constexpr int32_t kMostRebuilds = 0xffff;
  KVC_CHECK(count >= 0 && count <= kMostRebuilds, kBadShape,
            "key rebuild: expected 0 to {} rebuilds, got {}", kMostRebuilds, count);
  if (count == 0 || most_rows == 0) {
    return;
  }
  const unsigned blocks = (static_cast<unsigned>(most_rows) + kBlockKeys - 1) / kBlockKeys;
  LaunchShape shape("RebuildKernel", blocks, kThreads, sizeof(RebuildShared));
  shape.blocks_y = static_cast<unsigned>(count);
  Launch(RebuildKernel, shape, stream, rebuilds);
}

}  // namespace kvc::cuda
