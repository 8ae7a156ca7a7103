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

// sum[r][o] += x[r, i ...] . W[first + o, i ...] over the lane's part of a row. Rows beyond the
// last repeat it, and are not stored.
template <class X, class W, int kRows>
__device__ __forceinline__ void SumProducts(const ProductArguments<X, W>& in,
                                            int first,
                                            float (&sum)[kRows][kOutputs]) {
  constexpr int n = kPerChunk<W>;
  for (int i = LaneIndex() * n; i < in.in; i += 32 * n) {
    float w[kOutputs][n];
#pragma unroll
    for (int o = 0; o < kOutputs; ++o) {
      const int64_t row = min(first + o, in.out - 1);
      Unpack<W>(LoadStream16(in.w + row * in.w_stride + i), w[o]);
    }
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      float x[n];
      const X* p = in.x + static_cast<int64_t>(min(r, in.rows - 1)) * in.x_stride + i;
      if constexpr (n * sizeof(X) >= 16) {
        LoadElements<n>(p, x);
      } else {
        // 4 of the 16-bit elements that come with 4 float weights.
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

// A warp takes kOutputs rows of W.
template <class X, class W, int kRows>
__global__ void __launch_bounds__(kThreads) FewRowKernel(const ProductArguments<X, W> in) {
  const int first = static_cast<int>(blockIdx.x) * kOutputsPerBlock + WarpIndex() * kOutputs;
  if (first >= in.out) {
    return;
  }
  float sum[kRows][kOutputs] = {};
  SumProducts<X, W, kRows>(in, first, sum);
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

template <class X, class W>
void LaunchProduct(const ProductArguments<X, W>& in, StreamHandle stream) {
  const LaunchShape shape("FewRowKernel", BlocksFor(in.out, kOutputsPerBlock), kThreads);
  if (in.rows == 1) {
    Launch(FewRowKernel<X, W, 1>, shape, stream, in);
  } else if (in.rows == 2) {
    Launch(FewRowKernel<X, W, 2>, shape, stream, in);
  } else if (in.rows <= 4) {
    Launch(FewRowKernel<X, W, 4>, shape, stream, in);
  } else {
    Launch(FewRowKernel<X, W, 8>, shape, stream, in);
  }
}

void CheckShapes(const ConstRows& x, const ConstRows& w, const Rows& y) {
  KVC_CHECK(x.rows == y.rows && x.width == w.width && w.rows == y.width && x.dtype == y.dtype,
            kBadShape, "few-row product: expected [{}, {}] of {}, got [{}, {}] of {}", x.rows,
            w.rows, ShortName(x.dtype), y.rows, y.width, ShortName(y.dtype));
  KVC_CHECK(x.rows <= kMostProductRows, kBadShape,
            "few-row product: expected at most {} rows, got {}", kMostProductRows, x.rows);
  KVC_CHECK(w.width % 8 == 0 && InChunks(w, 8) && InChunks(x, 8), kUnsupported,
            "few-row product: expected rows of whole 16 bytes, a multiple of 8 elements, got {}",
            w.width);
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
      LaunchProduct(in, stream);
    });
  });
}

}  // namespace kvc::cuda
