#include "kernels/heads.h"

#include <algorithm>

#include "core/base/error.h"
#include "kernels/cpu/for_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/heads.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// y[r] = bias[r] + sum_d x[d] columns[d, r] for columns [depth, width] whose rows lie `stride`
// apart. Each y[r] is summed in the order of d.
void RowTimesColumns(const float* x,
                     const float* columns,
                     int64_t stride,
                     const float* bias,
                     int64_t depth,
                     int64_t width,
                     float* y) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t r = 0;
  for (; r + 2 * lanes <= width; r += 2 * lanes) {
    VecF low = bias != nullptr ? hn::LoadU(tag, bias + r) : hn::Zero(tag);
    VecF high = bias != nullptr ? hn::LoadU(tag, bias + r + lanes) : hn::Zero(tag);
    for (int64_t d = 0; d < depth; ++d) {
      const VecF x_d = hn::Set(tag, x[d]);
      low = hn::MulAdd(x_d, hn::LoadU(tag, columns + d * stride + r), low);
      high = hn::MulAdd(x_d, hn::LoadU(tag, columns + d * stride + r + lanes), high);
    }
    hn::StoreU(low, tag, y + r);
    hn::StoreU(high, tag, y + r + lanes);
  }
  for (; r < width; r += lanes) {
    const int64_t count = std::min(lanes, width - r);
    const bool whole = count == lanes;
    const auto load = [&](const float* p)
                          HWY_ATTR { return whole ? hn::LoadU(tag, p) : LoadFirst(tag, p, count); };
    VecF sum = bias != nullptr ? load(bias + r) : hn::Zero(tag);
    for (int64_t d = 0; d < depth; ++d) {
      sum = hn::MulAdd(hn::Set(tag, x[d]), load(columns + d * stride + r), sum);
    }
    HWY_ALIGN float lane[hn::MaxLanes(TagF())];
    hn::Store(sum, tag, lane);
    std::copy_n(lane, count, y + r);
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(RowTimesColumns);

namespace {

// The products of a part that is worth a thread.
constexpr int64_t kGrain = 65536;

}  // namespace

void ProjectHeads(ConstMatrixF x,
                  int64_t heads,
                  ConstMatrixF columns,
                  int64_t groups,
                  const float* bias,
                  MatrixF y,
                  ThreadPool& pool) {
  const bool fits = groups > 0 && heads > 0 && heads % groups == 0 && columns.rows % groups == 0 &&
                    x.cols == heads * (columns.rows / groups) && y.cols == heads * columns.cols &&
                    x.rows == y.rows;
  KVC_CHECK(fits, kBadShape,
            "ProjectHeads: {0} heads in {1} groups: expected x [T, {0} D], columns [{1} D, R] and "
            "y [T, {0} R], got [{2}, {3}], [{4}, {5}] and [{6}, {7}]",
            heads, groups, x.rows, x.cols, columns.rows, columns.cols, y.rows, y.cols);
  const int64_t depth = columns.rows / groups;  // D
  const int64_t width = columns.cols;           // R
  const int64_t share = heads / groups;
  ForRows(x.rows, heads * depth * width, kGrain, pool, [&](int64_t t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t g = h / share;
      HWY_DYNAMIC_DISPATCH(RowTimesColumns)
      (x.row(t) + h * depth, columns.row(g * depth), columns.stride,
       bias != nullptr ? bias + g * width : nullptr, depth, width, y.row(t) + h * width);
    }
  });
}

void RopePairs(MatrixF x,
               std::span<const int64_t> pairs,
               std::span<const int32_t> positions,
               ConstMatrixF cos,
               ConstMatrixF sin,
               ThreadPool& pool) {
  const bool fits = x.cols == 2 * std::ssize(pairs) && x.rows == std::ssize(positions) &&
                    cos.rows == sin.rows && cos.cols == sin.cols;
  KVC_CHECK(fits, kBadShape,
            "RopePairs: expected x [{}, 2 * {}] and tables of one size, got x [{}, {}]",
            positions.size(), pairs.size(), x.rows, x.cols);
  ForRows(x.rows, x.cols, kGrain / 8, pool, [&](int64_t t) {
    const int64_t position = PositionOf("RopePairs", positions, t, cos.rows);
    const float* c = cos.row(position);
    const float* s = sin.row(position);
    float* row = x.row(t);
    for (const int64_t pair : pairs) {
      const float a = row[0];
      const float b = row[1];
      row[0] = a * c[pair] - b * s[pair];
      row[1] = b * c[pair] + a * s[pair];
      row += 2;
    }
  });
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
