#pragma once
// device.cuh for nvcc, sm_80 and later. Each function is one instruction; its emulated twin in
// device_emulated.cuh is tested against the PTX ISA's tables.

#include <type_traits>
#include <utility>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "core/base/error.h"
#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/launches_nvcc.h"

namespace kvc::cuda {

constexpr unsigned kAllLanes = 0xffffffffU;

__device__ __forceinline__ int LaneIndex() { return static_cast<int>(threadIdx.x) & 31; }
__device__ __forceinline__ int WarpIndex() { return static_cast<int>(threadIdx.x) >> 5; }

__device__ __forceinline__ void SyncBlock() { __syncthreads(); }
__device__ __forceinline__ void SyncWarp() { __syncwarp(); }
__device__ __forceinline__ void SyncNamed(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

template <class T>
__device__ __forceinline__ T Shuffle(T x, int lane) {
  return __shfl_sync(kAllLanes, x, lane);
}
template <class T>
__device__ __forceinline__ T ShuffleXor(T x, int mask) {
  return __shfl_xor_sync(kAllLanes, x, mask);
}
__device__ __forceinline__ unsigned Ballot(bool x) { return __ballot_sync(kAllLanes, x); }
__device__ __forceinline__ int CountBits(unsigned x) { return __popc(x); }
template <int mask = 31>
__device__ __forceinline__ float WarpSum(float x) {
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) {
    if ((mask & bit) != 0) {
      x += ShuffleXor(x, bit);
    }
  }
  return x;
}
template <int mask = 31>
__device__ __forceinline__ float WarpMax(float x) {
#pragma unroll
  for (int bit = 16; bit > 0; bit /= 2) {
    if ((mask & bit) != 0) {
      x = fmaxf(x, ShuffleXor(x, bit));
    }
  }
  return x;
}

template <class Layout>
__device__ __forceinline__ Layout& SharedMemory() {
  // A comment in PTX, for scripts/cuda_static_figures.sh.
  asm volatile("// dynamic shared memory: %0 bytes" ::"n"(sizeof(Layout)));
  extern __shared__ __align__(128) unsigned char kvc_shared_memory[];
  return *reinterpret_cast<Layout*>(kvc_shared_memory);
}

__device__ __forceinline__ uint4 Load16(const void* p) { return *static_cast<const uint4*>(p); }
__device__ __forceinline__ void Store16(void* p, const uint4& x) { *static_cast<uint4*>(p) = x; }
__device__ __forceinline__ uint4 LoadStream16(const void* p) {
  uint4 x;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(x.x), "=r"(x.y), "=r"(x.z), "=r"(x.w)
               : "l"(p));
  return x;
}
__device__ __forceinline__ float LoadFromOthers(const float* p) { return __ldcg(p); }
__device__ __forceinline__ int AtomicAdd(int* p, int x) { return atomicAdd(p, x); }
__device__ __forceinline__ void Fence() { __threadfence(); }

__device__ __forceinline__ unsigned SharedAddress(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
// 16 bytes, or zeros where not `valid`.
__device__ __forceinline__ void CopyAsync16(void* shared, const void* global, bool valid) {
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(SharedAddress(shared)),
      "l"(global), "r"(valid ? 16 : 0)
      : "memory");
}
__device__ __forceinline__ void CommitCopies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int pending>
__device__ __forceinline__ void WaitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// Four 8x8 matrices of 16-bit elements: lane l gives row l % 8 of matrix l / 8 and gets the
// elements 2 (l % 4), + 1 of row l / 4 of each.
__device__ __forceinline__ void LoadMatrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// The same of their transposes.
__device__ __forceinline__ void LoadMatricesTransposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(SharedAddress(row))
               : "memory");
}
// An 8x8 matrix in registers, as LoadMatrices gives one, becomes its transpose.
__device__ __forceinline__ uint32_t TransposeMatrix(uint32_t x) {
  uint32_t y;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
  return y;
}
// d [16, 8] += a [16, 16] b [16, 8] for T = __half.
__device__ __forceinline__ void MultiplyAddF16(float (&d)[4],
                                               const uint32_t (&a)[4],
                                               const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// For T = __nv_bfloat16.
__device__ __forceinline__ void MultiplyAddBF16(float (&d)[4],
                                                const uint32_t (&a)[4],
                                                const uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
template <class T>
__device__ __forceinline__ void MultiplyAdd(float (&d)[4],
                                            const uint32_t (&a)[4],
                                            const uint32_t (&b)[2]) {
  if constexpr (std::is_same_v<T, __half>) {
    MultiplyAddF16(d, a, b);
  } else {
    MultiplyAddBF16(d, a, b);
  }
}

__device__ __forceinline__ float Exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float RSqrt(float x) { return rsqrtf(x); }

// Nothing to wait for before sm_90, where launches are never early.
__device__ __forceinline__ void WaitForPrevious() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void LetNextStart() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" :::);
#endif
}

constexpr size_t kSharedBytesWithoutAsking = 48 << 10;

template <class... Parameters, class... Arguments>
void Launch(void (*kernel)(Parameters...),
            const LaunchShape& shape,
            StreamHandle stream,
            Arguments&&... arguments) {
  cudaError_t status = cudaSuccess;
  if (shape.shared_bytes > kSharedBytesWithoutAsking) {
    status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                  static_cast<int>(shape.shared_bytes));
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.blocks_x, shape.blocks_y);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = reinterpret_cast<cudaStream_t>(stream);
  config.attrs = &attribute;
  config.numAttrs = shape.early ? 1 : 0;
  if (status == cudaSuccess) {
    status = cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
  }
  RememberLaunch(shape.name);
  KVC_CHECK(status == cudaSuccess, kDevice, "{}: expected a launch, got {}", shape.name,
            cudaGetErrorString(status));
  WaitForLaunch(shape.name, stream);
}

}  // namespace kvc::cuda
