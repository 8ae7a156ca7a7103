#pragma once
// device.cuh for the host compiler: every thread of a block is a fiber (kernels/emulator).

#include <algorithm>
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/stream_emulated.h"
#include "kernels/emulator/collectives.h"
#include "kernels/emulator/thread.h"
#include "kernels/emulator/toolkit.h"

#define threadIdx (::kvc::emulator::self->index)
#define blockIdx (::kvc::emulator::self->block->index)
#define blockDim (::kvc::emulator::self->block->dim)
#define gridDim (::kvc::emulator::self->block->grid_dim)

namespace kvc::cuda {

using std::max;
using std::min;

inline int LaneIndex() { return emulator::self->lane; }
inline int WarpIndex() { return emulator::self->id / emulator::kWarpLanes; }

KVC_SITE void SyncBlock() { emulator::MeetBlock(KVC_CALLER); }
KVC_SITE void SyncWarp() {
  emulator::MeetWarp(emulator::Meeting::kSyncWarp, nullptr, emulator::FinishSync, KVC_CALLER);
}
KVC_SITE void SyncNamed(int id, int threads) { emulator::MeetNamed(id, threads, KVC_CALLER); }

template <class T>
KVC_SITE T Shuffle(T x, int lane) {
  static_assert(sizeof(T) == sizeof(uint32_t), "a shuffle moves 4 bytes");
  emulator::ShuffleOperand operand = {0, lane};
  std::memcpy(&operand.value, &x, sizeof(x));
  emulator::MeetWarp(emulator::Meeting::kShuffle, &operand, emulator::FinishShuffle, KVC_CALLER);
  std::memcpy(&x, &operand.value, sizeof(x));
  return x;
}
template <class T>
KVC_SITE T ShuffleXor(T x, int mask) {
  static_assert(sizeof(T) == sizeof(uint32_t), "a shuffle moves 4 bytes");
  emulator::ShuffleOperand operand = {0, LaneIndex() ^ mask};
  std::memcpy(&operand.value, &x, sizeof(x));
  emulator::MeetWarp(emulator::Meeting::kShuffle, &operand, emulator::FinishShuffle, KVC_CALLER);
  std::memcpy(&x, &operand.value, sizeof(x));
  return x;
}
KVC_SITE unsigned Ballot(bool x) {
  uint32_t operand = x ? 1 : 0;
  emulator::MeetWarp(emulator::Meeting::kVote, &operand, emulator::FinishBallot, KVC_CALLER);
  return operand;
}
inline int CountBits(unsigned x) { return __builtin_popcount(x); }
template <int mask = 31>
KVC_SITE float WarpSum(float x) {
  emulator::MeetWarp(emulator::Meeting::kReduce, &x, emulator::FinishSum<mask>, KVC_CALLER);
  return x;
}
template <int mask = 31>
KVC_SITE float WarpMax(float x) {
  emulator::MeetWarp(emulator::Meeting::kReduce, &x, emulator::FinishMax<mask>, KVC_CALLER);
  return x;
}

template <class Layout>
KVC_SITE Layout& SharedMemory() {
  return *static_cast<Layout*>(emulator::SharedMemoryOf(sizeof(Layout), KVC_CALLER));
}

KVC_SITE uint4 Load16(const void* p) {
  emulator::Touch(p, sizeof(uint4), false, KVC_CALLER);
  uint4 x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
KVC_SITE void Store16(void* p, const uint4& x) {
  emulator::Touch(p, sizeof(uint4), true, KVC_CALLER);
  std::memcpy(p, &x, sizeof(x));
}
KVC_SITE uint4 LoadStream16(const void* p) {
  emulator::Touch(p, sizeof(uint4), false, KVC_CALLER);
  uint4 x;
  std::memcpy(&x, p, sizeof(x));
  return x;
}
KVC_SITE float LoadFromOthers(const float* p) { return emulator::LoadFloat(p, KVC_CALLER); }
KVC_SITE int AtomicAdd(int* p, int x) { return emulator::AtomicAddInt(p, x, KVC_CALLER); }
inline void Fence() { emulator::FenceDevice(); }

KVC_SITE void CopyAsync16(void* shared, const void* global, bool valid) {
  emulator::CopyAsync(shared, global, valid, KVC_CALLER);
}
inline void CommitCopies() { emulator::CommitCopyGroup(); }
template <int pending>
void WaitCopies() {
  emulator::WaitForCopies(pending);
}

KVC_SITE void LoadMatrices(uint32_t (&r)[4], const void* row) {
  emulator::Touch(row, sizeof(uint4), false, KVC_CALLER);
  emulator::LoadMatrixOperand operand = {r, row};
  emulator::MeetWarp(emulator::Meeting::kLoadMatrix, &operand, emulator::FinishLoadMatrix,
                     KVC_CALLER);
}
KVC_SITE void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  emulator::Touch(row, sizeof(uint4), false, KVC_CALLER);
  emulator::LoadMatrixOperand operand = {r, row};
  emulator::MeetWarp(emulator::Meeting::kLoadMatrix, &operand, emulator::FinishLoadMatrixTransposed,
                     KVC_CALLER);
}
KVC_SITE uint32_t TransposeMatrix(uint32_t x) {
  emulator::MeetWarp(emulator::Meeting::kTranspose, &x, emulator::FinishTranspose, KVC_CALLER);
  return x;
}
template <class T>
KVC_SITE void MultiplyAdd(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::ProductOperand operand = {d, a, b};
  emulator::MeetWarp(
      emulator::Meeting::kProduct, &operand,
      std::is_same_v<T, __half> ? emulator::FinishProductF16 : emulator::FinishProductBF16,
      KVC_CALLER);
}

inline float Exp2(float x) { return std::exp2(x); }
inline float RSqrt(float x) { return 1.0F / std::sqrt(x); }

inline void WaitForPrevious() { emulator::WaitForPreviousGrid(); }
inline void LetNextStart() {}

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...),
            const LaunchShape& shape,
            StreamHandle stream,
            Arguments&&... arguments) {
  EnqueueKernel(shape, stream,
                [kernel, values = std::tuple<std::decay_t<Parameters>...>(std::forward<Arguments>(
                             arguments)...)] { std::apply(kernel, values); });
}

}  // namespace kvc::cuda
