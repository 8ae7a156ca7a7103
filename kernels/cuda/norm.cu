#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/norm.h"

namespace kvc::cuda {
namespace {

// Slices up to this wide are a warp's; wider ones a block's.
constexpr int64_t kWarpWidth = 1024;
constexpr int kSlicesPerBlock = 4;  // of a warp each
constexpr int kWideWarps = 8;

template <class T>
struct NormArguments {
  const T* x;  // [rows, heads * width]
  T* y;
  const float* weight;  // [width]
  const float* bias;    // [width] or null
  int64_t x_stride, y_stride;
  int heads;
  int width;
  float epsilon;
  int64_t slices;  // rows * heads
};

struct NormShared {
  float sums[2][kWideWarps];  // one for each sum, so that none is overwritten
};

// The sum over the threads of a slice, in all of them.
template <int kWarps>
__device__ __forceinline__ float SliceSum(float x, int which) {
  x = WarpSum(x);
  if constexpr (kWarps > 1) {
    auto& shared = SharedMemory<NormShared>();
    if (LaneIndex() == 0) {
      shared.sums[which][WarpIndex()] = x;
    }
    SyncBlock();
    x = 0.0F;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) {
      x += shared.sums[which][warp];
    }
  }
  return x;
}

// sum (x_i - shift)^power over the slice, power 1 or 2.
template <int n, int kWarps, int power, class T>
__device__ __forceinline__ float SumOver(const T* x, int width, float shift) {
  const int thread = kWarps == 1 ? LaneIndex() : static_cast<int>(threadIdx.x);
  float sum = 0.0F;
  for (int i = thread * n; i < width; i += 32 * kWarps * n) {
    float part[n];
    LoadElements<n>(x + i, part);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      const float difference = part[j] - shift;
      sum += power == 1 ? difference : difference * difference;
    }
  }
  return SliceSum<kWarps>(sum, power - 1);
}

// A warp, or a block of kWideWarps, takes a slice.
template <class T, int n, int kWarps, bool centred>
__global__ void __launch_bounds__(kWarps == 1 ? 32 * kSlicesPerBlock : 32 * kWarps)
    NormKernel(const NormArguments<T> in) {
  const int64_t slice =
      kWarps == 1 ? static_cast<int64_t>(blockIdx.x) * kSlicesPerBlock + WarpIndex() : blockIdx.x;
  if (slice >= in.slices) {
    return;
  }
  const int64_t row = slice / in.heads;
  const int64_t column = slice % in.heads * in.width;
  const T* x = in.x + row * in.x_stride + column;
  T* y = in.y + row * in.y_stride + column;
  const auto width = static_cast<float>(in.width);
  float mean = 0.0F;
  if constexpr (centred) {
    mean = SumOver<n, kWarps, 1>(x, in.width, 0.0F) / width;
  }
  const float factor = RSqrt(SumOver<n, kWarps, 2>(x, in.width, mean) / width + in.epsilon);
  const int thread = kWarps == 1 ? LaneIndex() : static_cast<int>(threadIdx.x);
  for (int i = thread * n; i < in.width; i += 32 * kWarps * n) {
    float part[n];
    LoadElements<n>(x + i, part);
#pragma unroll
    for (int j = 0; j < n; ++j) {
      part[j] = (part[j] - mean) * factor * in.weight[i + j];
      if (centred && in.bias != nullptr) {
        part[j] += in.bias[i + j];
      }
    }
    StoreElements<n>(y + i, part);
  }
}

template <class T, int n, bool centred>
void LaunchNorm(const NormArguments<T>& in, StreamHandle stream) {
  if (in.width <= kWarpWidth) {
    Launch(NormKernel<T, n, 1, centred>,
           LaunchShape("NormKernel", BlocksFor(in.slices, kSlicesPerBlock), 32 * kSlicesPerBlock),
           stream, in);
  } else {
    Launch(NormKernel<T, n, kWideWarps, centred>,
           LaunchShape("NormKernel", BlocksFor(in.slices, 1), 32 * kWideWarps, sizeof(NormShared)),
           stream, in);
  }
}

constexpr int kSumThreads = 1024;
struct SumShared {
  double sum[kSumThreads];
};

// A block for the whole sum.
__global__ void __launch_bounds__(kSumThreads) MeanSquaredNormKernel(
    const float* x, int64_t rows, int64_t width, int64_t stride, double* mean) {
  auto& shared = SharedMemory<SumShared>();
  const int thread = static_cast<int>(threadIdx.x);
  double sum = 0.0;
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t e = thread; e < width; e += kSumThreads) {
      const auto value = static_cast<double>(x[t * stride + e]);
      sum += value * value;
    }
  }
  shared.sum[thread] = sum;
  for (int half = kSumThreads / 2; half > 0; half /= 2) {
    SyncBlock();  // the sums of twice as many threads are there
    if (thread < half) {
      shared.sum[thread] += shared.sum[thread + half];
    }
  }
  if (thread == 0) {
    *mean = rows > 0 ? shared.sum[0] / static_cast<double>(rows) : 0.0;
  }
}

template <bool centred>
void Norm(const ConstRows& x,
          int64_t heads,
          const float* weight,
          const float* bias,
          float epsilon,
          const Rows& y,
          StreamHandle stream) {
  CheckSameShape(x, y, "norm");
  KVC_CHECK(heads > 0 && x.width % heads == 0 && x.width > 0, kBadShape,
            "norm: expected rows of {} heads, got {} elements", heads, x.width);
  if (x.rows == 0) {
    return;
  }
  WithElement(x.dtype, "norm", [&](auto tag) {
    using T = typename decltype(tag)::Type;
    constexpr int kGroup = kPerChunk<T>;
    const int64_t width = x.width / heads;
    const NormArguments<T> in = {static_cast<const T*>(x.data),
                                 static_cast<T*>(y.data),
                                 weight,
                                 bias,
                                 x.stride,
                                 y.stride,
                                 static_cast<int>(heads),
                                 static_cast<int>(width),
                                 epsilon,
                                 x.rows * heads};
    if (width % kGroup == 0 && InChunks(x, kGroup) && InChunks(y, kGroup)) {
      LaunchNorm<T, kGroup, centred>(in, stream);
    } else {
      LaunchNorm<T, 1, centred>(in, stream);
    }
  });
}

}  // namespace

void RmsNorm(const ConstRows& x,
             int64_t heads,
             const float* weight,
             float epsilon,
             const Rows& y,
             StreamHandle stream) {
  Norm<false>(x, heads, weight, nullptr, epsilon, y, stream);
}

void LayerNorm(const ConstRows& x,
               int64_t heads,
               const float* weight,
               const float* bias,
               float epsilon,
               const Rows& y,
               StreamHandle stream) {
  Norm<true>(x, heads, weight, bias, epsilon, y, stream);
}

void MeanSquaredNorm(const ConstRows& x, double* mean, StreamHandle stream) {
  KVC_CHECK(x.dtype == DType::kF32, kUnsupported, "mean squared norm: expected f32, got {}",
            ShortName(x.dtype));
  Launch(MeanSquaredNormKernel,
         LaunchShape("MeanSquaredNormKernel", 1, kSumThreads, sizeof(SumShared)), stream,
         static_cast<const float*>(x.data), x.rows, x.width, x.stride, mean);
}

}  // namespace kvc::cuda
