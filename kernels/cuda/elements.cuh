#pragma once
// Elements of rows in groups: 16 bytes at a time where rows allow it, else one by one.

#include "core/base/error.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/rows.h"

namespace kvc::cuda {

// n elements at p: n is 1, or fills whole chunks of 16 bytes.
template <int n, class T>
__device__ __forceinline__ void LoadElements(const T* p, float (&x)[n]) {
  if constexpr (n == 1) {
    x[0] = ToFloat(*p);
  } else {
    constexpr int kStep = kPerChunk<T>;
#pragma unroll
    for (int first = 0; first < n; first += kStep) {
      float part[kStep];
      Unpack<T>(Load16(p + first), part);
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        x[first + i] = part[i];
      }
    }
  }
}

template <int n, class T>
__device__ __forceinline__ void StoreElements(T* p, const float (&x)[n]) {
  if constexpr (n == 1) {
    *p = FromFloat<T>(x[0]);
  } else {
    constexpr int kStep = kPerChunk<T>;
#pragma unroll
    for (int first = 0; first < n; first += kStep) {
      T part[kStep];
#pragma unroll
      for (int i = 0; i < kStep; ++i) {
        part[i] = FromFloat<T>(x[first + i]);
      }
      uint4 chunk;
      memcpy(&chunk, part, sizeof(chunk));
      Store16(p + first, chunk);
    }
  }
}

// A type as a value.
template <class T>
struct Tag {
  using Type = T;
};

// Calls body(Tag<T>()) with the element type of `dtype`.
template <class Body>
void WithElement(DType dtype, const char* what, const Body& body) {
  switch (dtype) {
    case DType::kF32:
      return body(Tag<float>());
    case DType::kBF16:
      return body(Tag<__nv_bfloat16>());
    case DType::kF16:
      return body(Tag<__half>());
    default:
      KVC_THROW(kUnsupported, "{}: expected f32, f16 or bf16, got {}", what,
                SafetensorsName(dtype));
  }
}

// Rows of which every one begins at a multiple of 16 bytes.
inline bool BeginInChunks(const ConstRows& rows) {
  return rows.stride * DTypeBytes(rows.dtype) % 16 == 0 &&
         reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
}
// Rows of which every one begins at, and is, a multiple of `n` elements that fill chunks of 16
// bytes.
inline bool InChunks(const ConstRows& rows, int n) {
  return rows.width % n == 0 && BeginInChunks(rows);
}

inline void CheckSameShape(const ConstRows& x, const ConstRows& y, const char* what) {
  KVC_CHECK(x.rows == y.rows && x.width == y.width && x.dtype == y.dtype, kBadShape,
            "{}: expected [{}, {}] of {}, got [{}, {}] of {}", what, x.rows, x.width,
            ShortName(x.dtype), y.rows, y.width, ShortName(y.dtype));
}

constexpr unsigned kElementThreads = 256;  // of a block whose threads work alone

inline unsigned BlocksFor(int64_t items, int64_t per_block) {
  const int64_t blocks = (items + per_block - 1) / per_block;
  KVC_CHECK(blocks <= 0x7fffffff, kBadShape, "grid: expected fewer than 2^31 blocks, got {}",
            blocks);
  return static_cast<unsigned>(blocks);
}

}  // namespace kvc::cuda
