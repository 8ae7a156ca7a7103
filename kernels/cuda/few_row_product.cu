#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/few_row_product.h"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kOutputs = 2;  // rows of W of a warp: their loads are under way together
constexpr int kOutputsPerBlock = kThreads / 32 * kOutputs;

template <class X, class W>
struct ProductArguments {
  const X* x;         // [rows, in]
  const W* w;         // [out, in]
  const float* bias;  // [out] or null
  X* y;               // [rows, out]
  int64_t x_stride, w_stride, y_stride;
  int rows, in, out;
  bool add;
};

// n weights, 16 bytes or one element.
template <int n, class W>
__device__ __forceinline__ void LoadWeights(const W* from, float (&w)[n]) {
  if constexpr (n == 1) {
    w[0] = ToFloat(*from);
  } else {
    Unpack<W>(LoadStream16(from), w);
  }
}

// sum[r][o] += x[r, i ...] . W[first + o, i ...] over the lane's part of columns begin .. end - 1,
// n at a time. Rows beyond the last repeat it, and are not stored.
template <int n, class X, class W, int kRows>
__device__ __forceinline__ void SumProducts(const ProductArguments<X, W>& in,
                                            int first,
                                            int begin,
                                            int end,
                                            float (&sum)[kRows][kOutputs]) {
  for (int i = begin + LaneIndex() * n; i < end; i += 32 * n) {
    float w[kOutputs][n];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      const int64_t row = min(first + o, in.out - 1);
      LoadWeights<n>(in.w + row * in.w_stride + i, w[o]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float x[n];
      const X* p = in.x + static_cast<int64_t>(min(r, in.rows - 1)) * in.x_stride + i;
      if constexpr (n * sizeof(X) >= 16) {
        LoadElements<n>(p, x);
      } else {
        // 4 of the 16-bit elements that come with 4 float weights, or one.
#pragma unroll
        for (int j = 0; j < n; ++j) {
          x[j] = ToFloat(p[j]);
        }
      }
#pragma unroll
      for (int o = 0; o < kOutputs; ++o) {
#pragma unroll
        for (int j = 0; j < n; ++j) {
          sum[r][o] += x[j] * w[o][j];
        }
      }
    }
  }
}

// A warp takes kOutputs rows of W. `chunked`: rows are read 16 bytes at a time, but for what is
// left at their ends.
template <class X, class W, int kRows, bool chunked>
__global__ void __launch_bounds__(kThreads) FewRowKernel(const ProductArguments<X, W> in) {
  const int first = static_cast<int>(blockIdx.x) * kOutputsPerBlock + WarpIndex() * kOutputs;
  if (first >= in.out) {
    return;
  }
  float sum[kRows][kOutputs] = {};
  int whole = 0;
  if constexpr (chunked) {
    constexpr int n = kPerChunk<W>;
    whole = in.in / n * n;
    SumProducts<n>(in, first, 0, whole, sum);
  }
  SumProducts<1>(in, first, whole, in.in, sum);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      float total = WarpSum(sum[r][o]);
      if (LaneIndex() == 0 && r < in.rows && first + o < in.out) {
        X* y = in.y + r * in.y_stride + first + o;
        total += in.bias != nullptr ? in.bias[first + o] : 0.0F;
        *y = FromFloat<X>(in.add ? ToFloat(*y) + total : total);
      }
    }
  }
}

template <class X, class W, bool chunked>
void LaunchProduct(const ProductArguments<X, W>& in, StreamHandle stream) {
  const LaunchShape shape("FewRowKernel", BlocksFor(in.out, kOutputsPerBlock), kThreads);
  if (in.rows == 1) {
    Launch(FewRowKernel<X, W, 1, chunked>, shape, stream, in);
  } else if (in.rows == 2) {
    Launch(FewRowKernel<X, W, 2, chunked>, shape, stream, in);
  } else if (in.rows <= 4) {
    Launch(FewRowKernel<X, W, 4, chunked>, shape, stream, in);
  } else {
    Launch(FewRowKernel<X, W, 8, chunked>, shape, stream, in);
  }
}

void CheckShapes(const ConstRows& x, const ConstRows& w, const Rows& y) {
  KVC_CHECK(x.rows == y.rows && x.width == w.width && w.rows == y.width && x.dtype == y.dtype,
            kBadShape, "few-row product: expected [{}, {}] of {}, got [{}, {}] of {}", x.rows,
            w.rows, ShortName(x.dtype), y.rows, y.width, ShortName(y.dtype));
  KVC_CHECK(x.rows <= kMostProductRows, kBadShape,
            "few-row product: expected at most {} rows, got {}", kMostProductRows, x.rows);
}

}  // namespace

void FewRowProduct(const ConstRows& x,
                   const ConstRows& w,
                   const float* bias,
                   bool add,
                   const Rows& y,
                   StreamHandle stream) {
  CheckShapes(x, w, y);
  if (y.rows == 0 || y.width == 0) {
    return;
  }
  WithElement(x.dtype, "few-row product", [&](auto x_tag) {
    using X = typename decltype(x_tag)::Type;
    WithElement(w.dtype, "few-row product", [&](auto w_tag) {
      using W = typename decltype(w_tag)::Type;
      const ProductArguments<X, W> in = {static_cast<const X*>(x.data),
                                         static_cast<const W*>(w.data),
                                         bias,
                                         static_cast<X*>(y.data),
                                         x.stride,
                                         w.stride,
                                         y.stride,
                                         static_cast<int>(x.rows),
                                         static_cast<int>(w.width),
                                         static_cast<int>(w.rows),
                                         add};
      if (BeginInChunks(x) && BeginInChunks(w)) {
        LaunchProduct<X, W, true>(in, stream);
      } else {
        LaunchProduct<X, W, false>(in, stream);
      }
    });
  });
}

}  // namespace kvc::cuda
