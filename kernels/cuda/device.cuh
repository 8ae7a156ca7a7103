#pragma once
// The device as kernels see it: the only place with intrinsics.
//
// A kernel source goes through nvcc (device_nvcc.cuh: one PTX instruction or builtin a function)
// and, unchanged, through the host compiler (device_emulated.cuh: the same functions on fibers).
// Both define, in namespace kvc::cuda:
//
//   LaneIndex, WarpIndex
//   SyncBlock, SyncWarp, SyncNamed(id, threads)     meetings that order memory
//   Shuffle(x, lane), ShuffleXor(x, mask), Ballot   meetings of a warp that do not
//   CountBits(x)                                    bits that are set
//   WarpSum<mask>, WarpMax<mask>                    butterfly over lanes that differ in mask's bits
//   SharedMemory<Layout>()                          the block's dynamic shared memory as one struct
//   Load16, Store16                                 16 bytes, aligned
//   LoadStream16                                    16 bytes that the kernel does not write, read
//   once LoadFromOthers                                  a float that another block has written
//   AtomicAdd, Fence                                fence, atomic ... atomic, fence orders blocks
//   CopyAsync16, CommitCopies, WaitCopies<pending>  global to shared memory behind the thread's
//   back LoadMatrices, LoadMatricesTransposed, TransposeMatrix, MultiplyAdd<T> Exp2, RSqrt
//   WaitForPrevious, LetNextStart                   early launches (launch_shape.h)
//   Launch(kernel, shape, stream, arguments...)     throws kDevice
//
// threadIdx, blockIdx, __global__ and the like keep their names. Shared memory is only dynamic.

#include <cstdint>
#include <cstring>

#if defined(__CUDACC__)
#include "kernels/cuda/device_nvcc.cuh"
#else
#include "kernels/cuda/device_emulated.cuh"
#endif

namespace kvc::cuda {

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }

// Rounds to nearest, ties to even.
template <class T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}

// Two floats as a pair of 16-bit floats, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t Pack(float low, float high);
template <>
__device__ __forceinline__ uint32_t Pack<__nv_bfloat16>(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
template <>
__device__ __forceinline__ uint32_t Pack<__half>(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}

// The elements of 16 bytes: 4 floats or 8 16-bit floats.
template <class T>
constexpr int kPerChunk = 16 / static_cast<int>(sizeof(T));
template <class T>
__device__ __forceinline__ void Unpack(const uint4& chunk, float (&x)[kPerChunk<T>]) {
  T element[kPerChunk<T>];
  memcpy(element, &chunk, sizeof(chunk));
#pragma unroll
  for (int i = 0; i < kPerChunk<T>; ++i) {
    x[i] = ToFloat(element[i]);
  }
}

}  // namespace kvc::cuda
