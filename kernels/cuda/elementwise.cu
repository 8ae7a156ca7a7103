#include <cmath>
#include <type_traits>

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/elementwise.h"

namespace kvc::cuda {
namespace {

constexpr float kLog2E = 1.44269504F;

struct Sum {
  static constexpr bool kTwo = true;
  __device__ static float Of(float a, float b) { return a + b; }
};
struct Product {
  static constexpr bool kTwo = true;
  __device__ static float Of(float a, float b) { return a * b; }
};
struct Silu {
  __device__ static float Of(float z) { return z / (1.0F + Exp2(-kLog2E * z)); }
};
struct GeluTanh {
  __device__ static float Of(float z) {
    constexpr float kRootTwoOverPi = 0.797884561F;
    return 0.5F * z * (1.0F + tanhf(kRootTwoOverPi * (z + 0.044715F * z * z * z)));
  }
};
struct GeluExact {
  __device__ static float Of(float z) {
    constexpr float kHalfRoot = 0.707106781F;  // 1 / sqrt(2)
    return 0.5F * z * (1.0F + erff(z * kHalfRoot));
  }
};
// f(a), or f(a) b.
template <class F, bool two>
struct Activated {
  static constexpr bool kTwo = two;
  __device__ static float Of(float a, float b) { return two ? F::Of(a) * b : F::Of(a); }
};

template <class T>
struct Operands {
  const T* a;  // [rows, groups * n]
  const T* b;
  T* y;
  int64_t a_stride, b_stride, y_stride;
  int64_t groups;  // of n elements in a row
  int64_t total;   // rows * groups
};

// y = Op(a, b), a thread for each group of n elements.
template <class T, int n, class Op>
__global__ void __launch_bounds__(kElementThreads) CombineKernel(const Operands<T> in) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= in.total) {
    return;
  }
  const int64_t row = i / in.groups;
  const int64_t column = i % in.groups * n;
  float a[n];
  float b[n] = {};
  LoadElements<n>(in.a + row * in.a_stride + column, a);
  if constexpr (Op::kTwo) {
    LoadElements<n>(in.b + row * in.b_stride + column, b);
  }
#pragma unroll
  for (int j = 0; j < n; ++j) {
    a[j] = Op::Of(a[j], b[j]);
  }
  StoreElements<n>(in.y + row * in.y_stride + column, a);
}

template <class T, int n, class Op>
void LaunchCombine(const ConstRows& a, const ConstRows& b, const Rows& y, StreamHandle stream) {
  const int64_t groups = y.width / n;
  const Operands<T> in = {static_cast<const T*>(a.data),
                          static_cast<const T*>(b.data),
                          static_cast<T*>(y.data),
                          a.stride,
                          b.stride,
                          y.stride,
                          groups,
                          y.rows * groups};
  Launch(CombineKernel<T, n, Op>,
         LaunchShape("CombineKernel", BlocksFor(in.total, kElementThreads), kElementThreads),
         stream, in);
}

template <class Op>
void Combine(
    const ConstRows& a, const ConstRows& b, const Rows& y, const char* what, StreamHandle stream) {
  CheckSameShape(a, y, what);
  CheckSameShape(b, y, what);
  if (y.rows == 0 || y.width == 0) {
    return;
  }
  WithElement(y.dtype, what, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    constexpr int kGroup = kPerChunk<T>;
    if (InChunks(a, kGroup) && InChunks(b, kGroup) && InChunks(y, kGroup)) {
      LaunchCombine<T, kGroup, Op>(a, b, y, stream);
    } else {
      LaunchCombine<T, 1, Op>(a, b, y, stream);
    }
  });
}

template <bool two>
void CombineActivated(
    Activation f, const ConstRows& a, const ConstRows& b, const Rows& y, StreamHandle stream) {
  switch (f) {
    case Activation::kSilu:
      return Combine<Activated<Silu, two>>(a, b, y, "silu", stream);
    case Activation::kGeluTanh:
      return Combine<Activated<GeluTanh, two>>(a, b, y, "gelu_tanh", stream);
    case Activation::kGeluExact:
      return Combine<Activated<GeluExact, two>>(a, b, y, "gelu", stream);
  }
}

// A thread for each pair (j, j + half) of each head of each row.
template <class T>
__global__ void __launch_bounds__(kElementThreads) RotateKernel(T* x,
                                                                int64_t stride,
                                                                int heads,
                                                                int head_width,
                                                                const int32_t* positions,
                                                                const RotationTable table,
                                                                int64_t total) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= total) {
    return;
  }
  const int half = static_cast<int>(table.half);
  const int j = static_cast<int>(i % half);
  const int head = static_cast<int>(i / half % heads);
  const int64_t row = i / half / heads;
  const int64_t angle = static_cast<int64_t>(positions[row]) * half + j;
  const float c = table.cos[angle];
  const float s = table.sin[angle];
  T* pair = x + row * stride + static_cast<int64_t>(head) * head_width + j;
  const float a = ToFloat(pair[0]);
  const float b = ToFloat(pair[half]);
  pair[0] = FromFloat<T>(a * c - b * s);
  pair[half] = FromFloat<T>(b * c + a * s);
}

// A thread for each group of n elements of each row; without ids, row t of the table.
template <class T, class Y, int n>
__global__ void __launch_bounds__(kElementThreads) EmbedKernel(const int32_t* ids,
                                                               const T* table,
                                                               int64_t table_stride,
                                                               Y* y,
                                                               int64_t y_stride,
                                                               int64_t groups,
                                                               int64_t total) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= total) {
    return;
  }
  const int64_t row = i / groups;
  const int64_t column = i % groups * n;
  float x[n];
  const int64_t from = ids != nullptr ? ids[row] : row;
  LoadElements<n>(table + from * table_stride + column, x);
  StoreElements<n>(y + row * y_stride + column, x);
}

template <class T, class Y, int n>
void LaunchEmbed(const int32_t* ids, const ConstRows& table, const Rows& y, StreamHandle stream) {
  const int64_t groups = y.width / n;
  const int64_t total = y.rows * groups;
  Launch(EmbedKernel<T, Y, n>,
         LaunchShape("EmbedKernel", BlocksFor(total, kElementThreads), kElementThreads), stream,
         ids, static_cast<const T*>(table.data), table.stride, static_cast<Y*>(y.data), y.stride,
         groups, total);
}

template <class T, class Y>
void EmbedAs(const int32_t* ids, const ConstRows& table, const Rows& y, StreamHandle stream) {
  constexpr int kGroup = kPerChunk < T >> kPerChunk<Y> ? kPerChunk<T> : kPerChunk<Y>;
  if (InChunks(table, kGroup) && InChunks(y, kGroup)) {
    LaunchEmbed<T, Y, kGroup>(ids, table, y, stream);
  } else {
    LaunchEmbed<T, Y, 1>(ids, table, y, stream);
  }
}

// y_t = table[ids[t]], or table[t] without ids.
void TakeRows(const int32_t* ids,
              const ConstRows& table,
              const Rows& y,
              const char* what,
              StreamHandle stream) {
  KVC_CHECK(table.width == y.width &&
                (y.dtype == table.dtype || y.dtype == DType::kF32 || table.dtype == DType::kF32),
            kBadShape, "{}: expected rows of {} in f32 or {}, got {} in {}", what, table.width,
            ShortName(table.dtype), y.width, ShortName(y.dtype));
  if (y.rows == 0 || y.width == 0) {
    return;
  }
  WithElement(table.dtype, what, [&](auto tag) {
    using T = typename decltype(tag)::Type;
    WithElement(y.dtype, what, [&](auto y_tag) {
      using Y = typename decltype(y_tag)::Type;
      if constexpr (std::is_same_v<T, Y> || std::is_same_v<T, float> || std::is_same_v<Y, float>) {
        EmbedAs<T, Y>(ids, table, y, stream);
      }
    });
  });
}

}  // namespace

void Add(const ConstRows& x, const Rows& y, StreamHandle stream) {
  Combine<Sum>(x, y, y, "add", stream);
}

void Multiply(const ConstRows& x, const Rows& y, StreamHandle stream) {
  Combine<Product>(x, y, y, "multiply", stream);
}

void Activate(Activation f, const ConstRows& x, const Rows& y, StreamHandle stream) {
  CombineActivated<false>(f, x, x, y, stream);
}

void ActivateMul(
    Activation f, const ConstRows& gate, const ConstRows& up, const Rows& y, StreamHandle stream) {
  CombineActivated<true>(f, gate, up, y, stream);
}

void Rotate(const Rows& x,
            int64_t heads,
            const int32_t* positions,
            const RotationTable& table,
            StreamHandle stream) {
  KVC_CHECK(heads > 0 && x.width % heads == 0 && 2 * table.half <= x.width / heads, kBadShape,
            "rotate: expected {} heads of at least {}, got rows of {}", heads, 2 * table.half,
            x.width);
  const int64_t total = x.rows * heads * table.half;
  if (total == 0) {
    return;
  }
  WithElement(x.dtype, "rotate", [&](auto tag) {
    using T = typename decltype(tag)::Type;
    Launch(RotateKernel<T>,
           LaunchShape("RotateKernel", BlocksFor(total, kElementThreads), kElementThreads), stream,
           static_cast<T*>(x.data), x.stride, static_cast<int>(heads),
           static_cast<int>(x.width / heads), positions, table, total);
  });
}

void Embed(const int32_t* ids, const ConstRows& table, const Rows& y, StreamHandle stream) {
  TakeRows(ids, table, y, "embed", stream);
}

void Copy(const ConstRows& x, const Rows& y, StreamHandle stream) {
  KVC_CHECK(x.rows == y.rows, kBadShape, "copy: expected {} rows, got {}", x.rows, y.rows);
  TakeRows(nullptr, x, y, "copy", stream);
}

}  // namespace kvc::cuda
