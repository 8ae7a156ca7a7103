#include "kernels/cuda/device.cuh"
#include "tests/cuda/checker_test_kernels.h"

namespace kvc::cuda {
namespace {

struct Shared {
  float x[64];
  uint4 chunk[64];
  bool last;
};

// A thread reads what its neighbour in another warp wrote.
template <bool fault>
__global__ void NeighbourKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  const auto i = static_cast<int>(threadIdx.x);
  shared.x[i] = 1.0F;
  if (!fault) {
    SyncBlock();
  }
  data[i] = shared.x[63 - i];
}

// Lanes of a warp; a shuffle is no barrier.
template <bool fault>
__global__ void LaneKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  const int lane = LaneIndex();
  shared.x[lane] = Shuffle(1.0F, 3);
  const float sum = WarpSum(1.0F);
  if (!fault) {
    SyncWarp();
  }
  data[lane] = sum + shared.x[31 - lane];
}

template <bool fault>
__global__ void OverwriteKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  const auto i = static_cast<int>(threadIdx.x);
  shared.x[i] = 1.0F;
  SyncBlock();
  data[i] = shared.x[63 - i];
  if (!fault) {
    SyncBlock();
  }
  shared.x[i] = 2.0F;
}

template <bool fault>
__global__ void TwoWritesKernel(float* data) {
  if (threadIdx.x == 0 || (fault && threadIdx.x == 33)) {
    data[0] = 1.0F;
  }
}

template <bool fault>
__global__ void GlobalNeighbourKernel(float* data) {
  const auto i = static_cast<int>(threadIdx.x);
  data[i] = 1.0F;
  if (!fault) {
    SyncBlock();
  }
  data[64 + i] = data[63 - i];
}

template <bool fault>
__global__ void UnwrittenSharedKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  if (!fault || threadIdx.x != 5) {
    shared.x[threadIdx.x] = 1.0F;
  }
  SyncBlock();
  data[threadIdx.x] = shared.x[threadIdx.x];
}

template <bool fault>
__global__ void FlightKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  const int lane = LaneIndex();
  CopyAsync16(&shared.chunk[lane], data + 4 * lane, true);
  CommitCopies();
  CopyAsync16(&shared.chunk[32 + lane], data + 4 * lane, true);
  CommitCopies();
  WaitCopies<fault ? 1 : 0>();
  SyncWarp();
  Store16(data + 256 + 4 * lane, Load16(&shared.chunk[63 - lane]));
}

// The wait makes a copy visible to its own thread alone.
template <bool fault>
__global__ void CopyMeetingKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  const int lane = LaneIndex();
  CopyAsync16(&shared.chunk[lane], data + 4 * lane, true);
  CommitCopies();
  WaitCopies<0>();
  if (!fault) {
    SyncWarp();
  }
  Store16(data + 256 + 4 * lane, Load16(&shared.chunk[31 - lane]));
}

template <bool fault>
__global__ void BoundsKernel(float* data) {
  if (threadIdx.x == 7) {
    data[fault ? 512 : 511] = 1.0F;
  }
}

template <bool fault>
__global__ void SharedBoundsKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  float* end = reinterpret_cast<float*>(&shared + 1);
  if (threadIdx.x == 7) {
    end[fault ? 0 : -4] = 1.0F;
    data[0] = 1.0F;
  }
}

template <bool fault>
__global__ void AlignmentKernel(float* data) {
  Store16(data + 8 * threadIdx.x, Load16(data + 4 * threadIdx.x + (fault ? 257 : 256)));
}

template <bool fault>
__global__ void DivergentKernel(float* data) {
  if (threadIdx.x < 32 || !fault) {
    SyncBlock();
  } else {
    data[threadIdx.x] = 1.0F;
    SyncBlock();
  }
}

template <bool fault>
__global__ void DivergentWarpKernel(float* data) {
  if (!fault || LaneIndex() < 16) {
    data[threadIdx.x] = WarpSum(1.0F);
  }
}

// Blocks 0 .. n - 2 write; the last to arrive reads.
enum class Missing { kNothing, kFenceBefore, kFenceAfter, kBarrierBefore, kBarrierAfter };
template <Missing missing>
__global__ void BlocksKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  int* arrived = reinterpret_cast<int*>(data + 500);
  if (threadIdx.x == 40) {
    data[blockIdx.x] = 1.0F;
  }
  if (missing != Missing::kBarrierBefore) {
    SyncBlock();
  }
  if (threadIdx.x == 0) {
    if (missing != Missing::kFenceBefore) {
      Fence();
    }
    shared.last = AtomicAdd(arrived, 1) == static_cast<int>(gridDim.x) - 1;
    if (missing != Missing::kFenceAfter) {
      Fence();
    }
  }
  if (missing != Missing::kBarrierAfter) {
    SyncBlock();
  } else {
    SyncWarp();
  }
  if (shared.last && threadIdx.x < gridDim.x) {
    data[100 + threadIdx.x] = LoadFromOthers(data + threadIdx.x);
  }
}

// A block overwrites what another one reads.
template <bool fault>
__global__ void OtherBlockKernel(float* data) {
  if (threadIdx.x == 0) {
    data[100 + blockIdx.x] = data[blockIdx.x];
    data[fault ? 1 - blockIdx.x : blockIdx.x] = 2.0F;
  }
}

__global__ void WriteKernel(float* data) { data[threadIdx.x] = data[64 + threadIdx.x] + 1.0F; }
enum class Early { kWaits, kReads, kOverwrites };
template <Early early>
__global__ void EarlyKernel(float* data) {
  const float constant = data[200 + threadIdx.x];  // nobody writes it: may be read before the wait
  if (early == Early::kReads) {
    data[128 + threadIdx.x] = data[threadIdx.x] + constant;
  }
  if (early == Early::kOverwrites) {
    data[64 + threadIdx.x] = constant;
  }
  WaitForPrevious();
  data[64 + threadIdx.x] = data[threadIdx.x] + constant;
}

template <void (*kernel)(float*), int blocks, int threads>
void Run(float* data, StreamHandle stream) {
  Launch(kernel, LaunchShape("TestKernel", blocks, threads, sizeof(Shared)), stream, data);
}
template <Early early>
void RunEarly(float* data, StreamHandle stream) {
  Launch(WriteKernel, LaunchShape("WriteKernel", 1, 64), stream, data);
  LaunchShape shape("EarlyKernel", 1, 64);
  shape.early = true;
  Launch(EarlyKernel<early>, shape, stream, data);
}

// The second thread to run reads what the first has written.
constexpr int kWriteLine = __LINE__ + 4;
__global__ void KnownRaceKernel(float* data) {
  auto& shared = SharedMemory<Shared>();
  if (threadIdx.x == 0) {
    shared.x[0] = 1.0F;
  }
  if (threadIdx.x == 50) {
    data[0] = shared.x[0];
  }
}

struct StridedShared {
  float x[32 * 32];
};
constexpr int kStridedLine = __LINE__ + 7;  // of the read of global memory
__global__ void StridedKernel(const float* from, float* to, int stride) {
  auto& shared = SharedMemory<StridedShared>();
  const int lane = LaneIndex();
  for (int i = lane; i < 32 * 32; i += 32) {
    shared.x[i] = 0.0F;
  }
  const float x = from[lane * stride];
  SyncWarp();
  to[lane] = x + shared.x[lane * stride];
}

}  // namespace

std::vector<FaultyKernel> FaultyKernels() {
  const std::string race = "got a race";
  const std::string unwritten = "got an unwritten read";
  return {
      {"neighbour", "", 0, Run<NeighbourKernel<false>, 1, 64>},
      // In order, the neighbour has not written yet: nor has its copy landed, further down.
      {"no barrier before a neighbour's value", unwritten, 1, Run<NeighbourKernel<true>, 1, 64>},
      {"lane", "", 0, Run<LaneKernel<false>, 1, 32>},
      {"no warp barrier", race, 2, Run<LaneKernel<true>, 1, 32>},
      {"overwrite", "", 0, Run<OverwriteKernel<false>, 1, 64>},
      {"no barrier before overwriting", race, 2, Run<OverwriteKernel<true>, 1, 64>},
      {"one write", "", 0, Run<TwoWritesKernel<false>, 1, 64>},
      {"two writes", race, 2, Run<TwoWritesKernel<true>, 1, 64>},
      {"global neighbour", "", 0, Run<GlobalNeighbourKernel<false>, 1, 64>},
      {"no barrier in global memory", race, 2, Run<GlobalNeighbourKernel<true>, 1, 64>},
      {"all written", "", 0, Run<UnwrittenSharedKernel<false>, 1, 64>},
      {"unwritten shared memory", unwritten, 1, Run<UnwrittenSharedKernel<true>, 1, 64>},
      {"copies waited for", "", 0, Run<FlightKernel<false>, 1, 32>},
      {"copy in flight", "got an access to a copy in flight", 2, Run<FlightKernel<true>, 1, 32>},
      {"copy and meeting", "", 0, Run<CopyMeetingKernel<false>, 1, 32>},
      {"copy without meeting", unwritten, 1, Run<CopyMeetingKernel<true>, 1, 32>},
      {"within bounds", "", 0, Run<BoundsKernel<false>, 1, 32>},
      {"out of bounds", "global memory: expected an allocation", 1, Run<BoundsKernel<true>, 1, 32>},
      {"within shared memory", "", 0, Run<SharedBoundsKernel<false>, 1, 32>},
      {"beyond shared memory", "shared memory: expected the launch's bytes", 1,
       Run<SharedBoundsKernel<true>, 1, 32>},
      {"aligned", "", 0, Run<AlignmentKernel<false>, 1, 32>},
      {"misaligned", "got a misaligned one", 1, Run<AlignmentKernel<true>, 1, 32>},
      {"one barrier", "", 0, Run<DivergentKernel<false>, 1, 64>},
      {"divergent barrier", "got two lines", 2, Run<DivergentKernel<true>, 1, 64>},
      {"whole warp", "", 0, Run<DivergentWarpKernel<false>, 1, 32>},
      {"half a warp", "got a deadlock", 1, Run<DivergentWarpKernel<true>, 1, 32>},
      {"blocks", "", 0, Run<BlocksKernel<Missing::kNothing>, 5, 64>},
      {"no fence before the atomic", race, 2, Run<BlocksKernel<Missing::kFenceBefore>, 5, 64>},
      {"no fence after the atomic", race, 2, Run<BlocksKernel<Missing::kFenceAfter>, 5, 64>},
      {"no barrier before the fence", race, 2, Run<BlocksKernel<Missing::kBarrierBefore>, 5, 64>},
      {"no barrier after the fence", race, 2, Run<BlocksKernel<Missing::kBarrierAfter>, 5, 64>},
      {"own elements", "", 0, Run<OtherBlockKernel<false>, 2, 32>},
      {"another block's elements", race, 2, Run<OtherBlockKernel<true>, 2, 32>},
      {"early", "", 0, RunEarly<Early::kWaits>},
      {"early read", "got an early access", 2, RunEarly<Early::kReads>},
      {"early overwrite", "got an early access", 2, RunEarly<Early::kOverwrites>},
  };
}

Lines RunKnownRace(float* data, StreamHandle stream) {
  Launch(KnownRaceKernel, LaunchShape("KnownRaceKernel", 1, 64, sizeof(Shared)), stream, data);
  return {kWriteLine, kWriteLine + 3};
}

void RunStrided(const float* from, float* to, int stride, StreamHandle stream) {
  Launch(StridedKernel, LaunchShape("StridedKernel", 1, 32, sizeof(StridedShared)), stream, from,
         to, stride);
}
Lines StridedLines() { return {kStridedLine, kStridedLine + 2}; }

}  // namespace kvc::cuda
