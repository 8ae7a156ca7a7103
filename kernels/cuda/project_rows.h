#pragma once
// Rows on the device between the model's columns and a layer's coordinates; the twin of
// runtime/cpu/head_basis.h. A table of projections names what goes where for all heads of a layer,
// and of several sequences; one launch executes it. Sums are in float, in an order that depends on
// widths alone. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/launch_shape.h"
#include "kernels/cuda/move_rows.h"

namespace kvc::cuda {

constexpr int32_t kMostBasisWidth = 256;

// The basis of one head's keys or values, on the device: matrices or reflectors. With neither, rows
// are decoded and encoded again.
//
// Reflectors go one after the other, so that a decode step's few rows wait for each. Their matrix
// Q, to which kToCoordinates takes the identity's rows, is the same basis as matrices: forward and
// back are both Q.
struct RowBasis {
  // x' = (x - mean) forward and x = mean + x' back^T; [width, width], rows `stride` floats apart.
  const float* forward = nullptr;
  const float* back = nullptr;
  const float* mean = nullptr;  // [width], or null: zero
  int64_t stride = 0;
  // x' = x H_1 .. H_r with H_i = I - u_i^T u_i; [count, width], one after the other.
  const float* reflectors = nullptr;
  int32_t count = 0;
  int32_t width = 0;
};

enum class BasisWay : int32_t {
  kToCoordinates,    // y = the first to.width coordinates of x [width]
  kToQueries,        // y [width] with y k'^T = x (k - mean)^T for queries x [width]
  kFromCoordinates,  // y [width] from the first from.width coordinates, the others being zero
};

// A move (move_rows.h) whose rows change their basis on the way. From coordinates, to.width is the
// basis' width, which may be more than from.width.
struct RowProjection {
  RowMove move;
  RowBasis basis;
  BasisWay way = BasisWay::kToCoordinates;
};

// What ProjectRows is told of a table: the most rows and the widest row of any projection in it.
struct ProjectionSize {
  int32_t most_rows = 0;
  int32_t most_width = 0;
};
// Throws as MostRows does, kBadShape for widths that do not fit the basis, and kUnsupported for
// rows wider than kMostBasisWidth.
[[nodiscard]] ProjectionSize SizeOf(const std::vector<RowProjection>& projections);

// Executes projections [count] on the device. No target may overlap a source or another target.
// Throws kBadShape for counts that no grid holds, kUnsupported for a width above kMostBasisWidth.
void ProjectRows(const RowProjection* projections,
                 int32_t count,
                 const ProjectionSize& size,
                 StreamHandle stream);

}  // namespace kvc::cuda
