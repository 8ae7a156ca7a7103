#include "kernels/cuda/device.cuh"
#include "tests/cuda/device_test_kernels.h"

namespace kvc::cuda {
namespace {

template <class T>
__global__ void ProductKernel(const uint32_t* a, const uint32_t* b, float* d) {
  const int lane = LaneIndex();
  uint32_t x[4];
  uint32_t y[2];
  float z[4];
  for (int r = 0; r < 4; ++r) {
    x[r] = a[4 * lane + r];
    z[r] = d[4 * lane + r];
  }
  for (int r = 0; r < 2; ++r) {
    y[r] = b[2 * lane + r];
  }
  MultiplyAdd<T>(z, x, y);
  for (int r = 0; r < 4; ++r) {
    d[4 * lane + r] = z[r];
  }
}

struct MatrixShared {
  uint4 rows[32];
};
__global__ void LoadMatricesKernel(const uint16_t* tile,
                                   uint32_t* plain,
                                   uint32_t* transposed,
                                   uint32_t* moved) {
  auto& shared = SharedMemory<MatrixShared>();
  const int lane = LaneIndex();
  Store16(&shared.rows[lane], Load16(tile + 8 * lane));
  SyncWarp();
  uint32_t r[4];
  LoadMatrices(r, &shared.rows[lane]);
  for (int m = 0; m < 4; ++m) {
    plain[4 * lane + m] = r[m];
  }
  moved[lane] = TransposeMatrix(r[0]);
  LoadMatricesTransposed(r, &shared.rows[lane]);
  for (int m = 0; m < 4; ++m) {
    transposed[4 * lane + m] = r[m];
  }
}

__global__ void ExchangeKernel(const float* x, float* out) {
  const int lane = LaneIndex();
  const float mine = x[lane];
  float* row = out + 6 * lane;
  row[0] = Shuffle(mine, 7);
  row[1] = ShuffleXor(mine, 4);
  row[2] = static_cast<float>(Ballot(static_cast<int>(mine) % 2 != 0) >> 16);
  row[3] = WarpSum(mine);
  row[4] = WarpSum<28>(mine);
  row[5] = WarpMax<28>(mine);
}

struct NamedShared {
  int value[2];
};
__global__ void NamedKernel(int* out, int rounds) {
  constexpr int kFull = 1;
  constexpr int kEmpty = 2;
  auto& shared = SharedMemory<NamedShared>();
  const int warp = WarpIndex();
  for (int round = 0; round < rounds; ++round) {
    if (warp < 2) {
      if (round > 0) {
        SyncNamed(kEmpty, 128);
      }
      if (LaneIndex() == 0) {
        shared.value[warp] = 10 * round + warp;
      }
      SyncNamed(kFull, 128);
    } else {
      SyncNamed(kFull, 128);
      if (LaneIndex() == 0) {
        out[2 * round + warp - 2] = shared.value[warp - 2];
      }
      if (round + 1 < rounds) {
        SyncNamed(kEmpty, 128);
      }
    }
  }
}

constexpr int kStages = 3;
struct CopyShared {
  uint4 stage[kStages][32];
};
__global__ void CopyKernel(const uint4* from, uint4* to, int count) {
  auto& shared = SharedMemory<CopyShared>();
  const int lane = LaneIndex();
  const auto issue = [&](int row) {
    const bool valid = row + lane < count;
    if (row < count) {
      CopyAsync16(&shared.stage[row / 32 % kStages][lane], from + (valid ? row + lane : 0), valid);
    }
    CommitCopies();
  };
  for (int stage = 0; stage < kStages - 1; ++stage) {
    issue(32 * stage);
  }
  for (int row = 0; row < count; row += 32) {
    WaitCopies<kStages - 2>();
    SyncWarp();
    const uint4 x = Load16(&shared.stage[row / 32 % kStages][lane ^ 1]);
    if (row + (lane ^ 1) < count) {
      Store16(to + row + (lane ^ 1), x);
    }
    SyncWarp();
    issue(row + 32 * (kStages - 1));
  }
}

struct LastShared {
  bool last;
};
__global__ void LastBlockKernel(float* parts, int* arrived, float* sum, int* times) {
  auto& shared = SharedMemory<LastShared>();
  const auto blocks = static_cast<int>(gridDim.x);
  if (threadIdx.x == 3) {
    parts[blockIdx.x] = static_cast<float>(blockIdx.x);
  }
  SyncBlock();
  if (threadIdx.x == 0) {
    Fence();
    shared.last = AtomicAdd(arrived, 1) == blocks - 1;
    Fence();
  }
  SyncBlock();
  if (shared.last && threadIdx.x == 40) {
    float total = 0.0F;
    for (int b = 0; b < blocks; ++b) {
      total += LoadFromOthers(parts + b);
    }
    *sum = total;
    AtomicAdd(times, 1);
    *arrived = 0;
  }
}

__global__ void StepKernel(int* x, int add) {
  if (threadIdx.x == 0) {
    *x = 2 * *x + add;
  }
}

}  // namespace

void RunProduct(bool f16, const uint32_t* a, const uint32_t* b, float* d, StreamHandle stream) {
  Launch(f16 ? ProductKernel<__half> : ProductKernel<__nv_bfloat16>,
         LaunchShape("ProductKernel", 1, 32), stream, a, b, d);
}
void RunLoadMatrices(const uint16_t* tile,
                     uint32_t* plain,
                     uint32_t* transposed,
                     uint32_t* moved,
                     StreamHandle stream) {
  Launch(LoadMatricesKernel, LaunchShape("LoadMatricesKernel", 1, 32, sizeof(MatrixShared)), stream,
         tile, plain, transposed, moved);
}
void RunExchange(const float* x, float* out, StreamHandle stream) {
  Launch(ExchangeKernel, LaunchShape("ExchangeKernel", 1, 32), stream, x, out);
}
void RunNamedBarriers(int* out, int rounds, StreamHandle stream) {
  Launch(NamedKernel, LaunchShape("NamedKernel", 1, 128, sizeof(NamedShared)), stream, out, rounds);
}
void RunCopies(const void* from, void* to, int count, StreamHandle stream) {
  Launch(CopyKernel, LaunchShape("CopyKernel", 1, 32, sizeof(CopyShared)), stream,
         static_cast<const uint4*>(from), static_cast<uint4*>(to), count);
}
void RunLastBlock(
    int blocks, float* parts, int* arrived, float* sum, int* times, StreamHandle stream) {
  Launch(LastBlockKernel,
         LaunchShape("LastBlockKernel", static_cast<unsigned>(blocks), 64, sizeof(LastShared)),
         stream, parts, arrived, sum, times);
}
void RunStep(int* x, int add, StreamHandle stream) {
  Launch(StepKernel, LaunchShape("StepKernel", 1, 32), stream, x, add);
}

}  // namespace kvc::cuda
