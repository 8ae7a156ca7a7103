#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/move_rows.cuh"
#include "kernels/cuda/project_rows.cuh"
#include "kernels/cuda/project_rows.h"

namespace kvc::cuda {
namespace {

constexpr int kMostProjections = 65535;  // the grid's second dimension

template <int kWidth, int kRows>
__device__ __forceinline__ void ChangeBasis(const RowProjection& in,
                                            bool busy,
                                            ProjectShared<kWidth, kRows>& shared,
                                            float (&x)[kRows][kWidth / 32]) {
  const RowBasis& basis = in.basis;
  const bool back = in.way == BasisWay::kFromCoordinates;
  const bool centred = basis.mean != nullptr && in.way != BasisWay::kToQueries;
  if (centred && !back) {
    AddMean(basis.mean, basis.width, -1.0F, x);
  }
  if (basis.reflectors != nullptr) {
    Reflect<kWidth, kRows>({basis.reflectors, basis.width, basis.count, basis.width, false, back},
                           busy, shared, x);
  } else if (back) {
    Replace<kWidth, kRows>({basis.back, basis.stride, in.move.from.width, basis.width, true, false},
                           busy, shared, x);
  } else {
    const float* matrix = in.way == BasisWay::kToQueries ? basis.back : basis.forward;
    Replace<kWidth, kRows>({matrix, basis.stride, basis.width, in.move.to.width, false, false},
                           busy, shared, x);
  }
  if (centred && back) {
    AddMean(basis.mean, basis.width, 1.0F, x);
  }
}

// A block for kProjectWarps * kRows rows of a projection.
template <int kWidth, int kRows>
__global__ void __launch_bounds__(kProjectThreads, kProjectBlocks<kWidth, kRows>)
    ProjectRowsKernel(const RowProjection* projections) {
  const RowProjection& in = projections[blockIdx.y];
  const RowMove& move = in.move;
  if (static_cast<int>(blockIdx.x) * kProjectWarps * kRows >= move.rows) {
    return;
  }
  const int first = (static_cast<int>(blockIdx.x) * kProjectWarps + WarpIndex()) * kRows;
  const bool has_basis = in.basis.reflectors != nullptr || in.basis.forward != nullptr;
  const int width = has_basis ? min(move.from.width, in.basis.width) : move.to.width;
  float x[kRows][kWidth / 32] = {};
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r < move.rows) {
      LoadRow(move.from, SourceRow(move, first + r), width, x[r]);
    }
  }
  if (has_basis) {
    auto& shared = SharedMemory<ProjectShared<kWidth, kRows>>();
    ChangeBasis<kWidth, kRows>(in, first < move.rows, shared, x);
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (first + r < move.rows) {
      StoreRow(move.to, TargetRow(move, first + r), x[r], move.faults);
    }
  }
}

template <int kWidth, int kRows>
void LaunchProject(const RowProjection* projections,
                   int32_t count,
                   int32_t most_rows,
                   StreamHandle stream) {
  LaunchShape shape("ProjectRowsKernel", BlocksFor(most_rows, kProjectWarps * kRows),
                    kProjectThreads, sizeof(ProjectShared<kWidth, kRows>));
  shape.blocks_y = static_cast<unsigned>(count);
  Launch(ProjectRowsKernel<kWidth, kRows>, shape, stream, projections);
}

template <int kWidth>
void LaunchProjectOf(const RowProjection* projections,
                     int32_t count,
                     int32_t most_rows,
                     StreamHandle stream) {
  // A decode step's few rows are a warp's each.
  if (most_rows <= kProjectWarps) {
    LaunchProject<kWidth, 1>(projections, count, most_rows, stream);
  } else {
    LaunchProject<kWidth, 8>(projections, count, most_rows, stream);
  }
}

}  // namespace

void ProjectRows(const RowProjection* projections,
                 int32_t count,
                 const ProjectionSize& size,
                 StreamHandle stream) {
  KVC_CHECK(size.most_width <= kMostBasisWidth, kUnsupported,
            "projections: expected a width of at most {}, got {}", kMostBasisWidth,
            size.most_width);
  KVC_CHECK(count <= kMostProjections, kBadShape, "projections: expected at most {}, got {}",
            kMostProjections, count);
  if (count == 0 || size.most_rows == 0) {
    return;
  }
  if (size.most_width <= 64) {
    LaunchProjectOf<64>(projections, count, size.most_rows, stream);
  } else if (size.most_width <= 128) {
    LaunchProjectOf<128>(projections, count, size.most_rows, stream);
  } else {
    LaunchProjectOf<256>(projections, count, size.most_rows, stream);
  }
}

}  // namespace kvc::cuda
