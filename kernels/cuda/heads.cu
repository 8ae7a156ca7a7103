#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/heads.h"
#include "kernels/cuda/project_rows.cuh"

namespace kvc::cuda {
namespace {

struct HeadsArguments {
  CachedRows x, y;  // of the first head
  const float* columns;
  const float* bias;  // or null
  int64_t columns_stride;
  int64_t rows;
  int heads_of_group;
};

// A block for kProjectWarps * kRows rows of a head.
template <int kWidth, int kRows>
__global__ void __launch_bounds__(kProjectThreads, kProjectBlocks<kWidth, kRows>)
    ProjectHeadsKernel(const HeadsArguments in) {
  const int head = static_cast<int>(blockIdx.y);
  const int group = head / in.heads_of_group;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kProjectWarps + WarpIndex()) * kRows;
  const int element = ElementBytes(in.x.code);
  CachedRows from = in.x;
  CachedRows to = in.y;
  from.data = RowAt(from, 0) + static_cast<int64_t>(head) * from.width * element;
  to.data = RowAt(to, 0) + static_cast<int64_t>(head) * to.width * element;
  float x[kRows][kWidth / 32] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r < in.rows) {
      LoadRow(from, first + r, from.width, x[r]);
    }
  }
  const float* columns = in.columns + static_cast<int64_t>(group) * from.width * in.columns_stride;
  Replace<kWidth, kRows>({columns, in.columns_stride, from.width, to.width, false, false},
                         first < in.rows, SharedMemory<ProjectShared<kWidth, kRows>>(), x);
  if (in.bias != nullptr) {
    AddMean(in.bias + static_cast<int64_t>(group) * to.width, to.width, 1.0F, x);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r < in.rows) {
      StoreRow(to, first + r, x[r], nullptr);
    }
  }
}

template <int kWidth, int kRows>
void LaunchProjectHeads(const HeadsArguments& in, int64_t heads, StreamHandle stream) {
  LaunchShape shape("ProjectHeadsKernel", BlocksFor(in.rows, kProjectWarps * kRows),
                    kProjectThreads, sizeof(ProjectShared<kWidth, kRows>));
  shape.blocks_y = static_cast<unsigned>(heads);
  Launch(ProjectHeadsKernel<kWidth, kRows>, shape, stream, in);
}

template <int kWidth>
void LaunchProjectHeadsOf(const HeadsArguments& in, int64_t heads, StreamHandle stream) {
  if (in.rows <= kProjectWarps) {
    LaunchProjectHeads<kWidth, 1>(in, heads, stream);
  } else {
    LaunchProjectHeads<kWidth, 8>(in, heads, stream);
  }
}

// `heads` consecutive slices of rows, as the first of them.
CachedRows HeadRows(const ConstRows& rows, int64_t heads) {
  RowCode code = RowCode::kF32;
  WithElement(rows.dtype, "project heads", [&](auto tag) {
    using T = typename decltype(tag)::Type;
    code = sizeof(T) == sizeof(float)         ? RowCode::kF32
           : std::is_same_v<T, __nv_bfloat16> ? RowCode::kBF16
                                              : RowCode::kF16;
  });
  return {const_cast<void*>(rows.data), code, static_cast<int32_t>(rows.width / heads),
          rows.stride * DTypeBytes(rows.dtype)};
}

// A thread for each pair of each row.
template <class T>
__global__ void __launch_bounds__(kElementThreads) RotatePairsKernel(T* x,
                                                                     int64_t stride,
                                                                     int width,
                                                                     const int32_t* pairs,
                                                                     const int32_t* positions,
                                                                     const RotationTable table,
                                                                     int64_t total) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= total) {
    return;
  }
  const int64_t row = i / width;
  const int64_t column = i % width;
  const int32_t angle_column = pairs[column];
  if (angle_column < 0) {
    return;
  }
  const int64_t angle = positions[row] * table.half + angle_column;
  const float c = table.cos[angle];
  const float s = table.sin[angle];
  T* pair = x + row * stride + 2 * column;
  const float a = ToFloat(pair[0]);
  const float b = ToFloat(pair[1]);
  pair[0] = FromFloat<T>(a * c - b * s);
  pair[1] = FromFloat<T>(b * c + a * s);
}

}  // namespace

void ProjectHeads(const ConstRows& x,
                  int64_t heads,
                  const ConstRows& columns,
                  int64_t groups,
                  const float* bias,
                  const Rows& y,
                  StreamHandle stream) {
  const bool divide = groups > 0 && heads > 0 && heads % groups == 0 && columns.rows % groups == 0;
  KVC_CHECK(divide && x.width == heads * (columns.rows / groups) &&
                y.width == heads * columns.width && x.rows == y.rows && x.dtype == y.dtype,
            kBadShape,
            "project heads: expected {0} heads in {1} groups, x [T, {0} D], columns [{1} D, R] and "
            "y [T, {0} R], got [{2}, {3}], [{4}, {5}] and [{6}, {7}]",
            heads, groups, x.rows, x.width, columns.rows, columns.width, y.rows, y.width);
  const int64_t width = std::max(x.width, y.width) / heads;
  KVC_CHECK(width <= kMostBasisWidth && heads <= 65535 && columns.dtype == DType::kF32,
            kUnsupported,
            "project heads: expected heads of at most {} in f32 columns, got {} in {}",
            kMostBasisWidth, width, ShortName(columns.dtype));
  if (x.rows == 0 || width == 0) {
    return;
  }
  const HeadsArguments in = {HeadRows(x, heads),
                             HeadRows(y, heads),
                             static_cast<const float*>(columns.data),
                             bias,
                             columns.stride,
                             x.rows,
                             static_cast<int>(heads / groups)};
  if (width <= 64) {
    LaunchProjectHeadsOf<64>(in, heads, stream);
  } else if (width <= 128) {
    LaunchProjectHeadsOf<128>(in, heads, stream);
  } else {
    LaunchProjectHeadsOf<256>(in, heads, stream);
  }
}

void RotatePairs(const Rows& x,
                 const int32_t* pairs,
                 const int32_t* positions,
                 const RotationTable& table,
                 StreamHandle stream) {
  KVC_CHECK(x.width % 2 == 0, kBadShape, "rotate pairs: expected an even width, got {}", x.width);
  const int64_t total = x.rows * (x.width / 2);
  if (total == 0) {
    return;
  }
  WithElement(x.dtype, "rotate pairs", [&](auto tag) {
    using T = typename decltype(tag)::Type;
    Launch(RotatePairsKernel<T>,
           LaunchShape("RotatePairsKernel", BlocksFor(total, kElementThreads), kElementThreads),
           stream, static_cast<T*>(x.data), x.stride, static_cast<int>(x.width / 2), pairs,
           positions, table, total);
  });
}

}  // namespace kvc::cuda
