// C = start + A B of blocks that lie in the caches: A in rows, B in panels of kPanel columns, and
// the packing of rows into such panels. The tile in registers is linalg/product-inl.h's; the
// callers choose the blocks of a product.

#include <algorithm>
#include <cstdint>
#include <type_traits>

#if defined(KVC_KERNELS_CPU_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_GEMM_INL_H_
#undef KVC_KERNELS_CPU_GEMM_INL_H_
#else
#define KVC_KERNELS_CPU_GEMM_INL_H_
#endif

#include <hwy/highway.h>

#include "core/base/view.h"
#include "kernels/cpu/row_readers-inl.h"
#include "kernels/cpu/simd-inl.h"
#include "linalg/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using linalg::HWY_NAMESPACE::kPanel;
constexpr int kVecs = linalg::HWY_NAMESPACE::kTileVecs;  // vectors of a panel's row

// Rows of A in a strip. The tile of kStrip rows and kPanel columns of C takes 24 of AVX-512's 32
// registers, 12 of the 16 that the other instruction sets have.
constexpr int kStrip = HWY_TARGET <= HWY_AVX3 ? 12 : 6;
// The longest inner dimension of one pass: a strip of A then fits the L1 cache.
constexpr int64_t kDepth = 768;

// What a product is added to: C itself, a row of biases, or nothing.
struct BlockStart {
  bool accumulate = false;
  const float* bias = nullptr;
};

// MultiplyPanelTile for any number of rows, fastest for a multiple of kStrip.
inline void MultiplyRows(ConstMatrixF a,
                         const float* b,
                         const float* start,
                         int64_t start_stride,
                         float* c,
                         int64_t c_stride) {
  int64_t r = 0;
  const auto run = [&](auto count) HWY_ATTR {
    constexpr int kRows = decltype(count)::value;
    for (; r + kRows <= a.rows; r += kRows) {
      linalg::HWY_NAMESPACE::MultiplyPanelTile<kRows>(a.row(r), a.stride, b, a.cols,
                                                      start + r * start_stride, start_stride,
                                                      c + r * c_stride, c_stride);
    }
  };
  run(std::integral_constant<int, kStrip>());
  run(std::integral_constant<int, kStrip / 2>());
  run(std::integral_constant<int, kStrip / 3>());
  run(std::integral_constant<int, 2>());
  run(std::integral_constant<int, 1>());
}

// C [rows, n] = start + A [rows, depth] B for rows <= kStrip. The panels of B lie `panel_stride` >=
// depth * kPanel elements apart; the last one is padded. The bias is [n].
inline void MultiplyStrip(
    ConstMatrixF a, const float* panels, int64_t panel_stride, BlockStart start, MatrixF c) {
  static constexpr float kZeros[kPanel] = {};
  HWY_ALIGN float edge[kStrip * kPanel];
  HWY_ALIGN float edge_bias[kPanel];
  for (int64_t col = 0; col < c.cols; col += kPanel, panels += panel_stride) {
    const int64_t count = std::min(kPanel, c.cols - col);
    const float* bias = start.bias == nullptr ? kZeros : start.bias + col;
    if (count == kPanel) {
      const float* from = start.accumulate ? c.data + col : bias;
      MultiplyRows(a, panels, from, start.accumulate ? c.stride : 0, c.data + col, c.stride);
      continue;
    }
    std::fill_n(edge_bias, kPanel, 0.0F);
    std::copy_n(bias, count, edge_bias);
    for (int64_t r = 0; r < c.rows && start.accumulate; ++r) {
      std::fill_n(edge + r * kPanel, kPanel, 0.0F);
      std::copy_n(c.row(r) + col, count, edge + r * kPanel);
    }
    MultiplyRows(a, panels, start.accumulate ? edge : edge_bias, start.accumulate ? kPanel : 0,
                 edge, kPanel);
    for (int64_t r = 0; r < c.rows; ++r) {
      std::copy_n(edge + r * kPanel, count, c.row(r) + col);
    }
  }
}

// The elements from one row of a strip to the next: an odd number of cache lines, so that the rows
// of a strip do not meet in the same sets of the L1 cache.
constexpr int64_t StripStride(int64_t depth) { return ((depth + 15) / 16 | 1) * 16; }

// C [T, n] = start + A [T, depth] B, strip by strip. `strip` is scratch memory of
// kStrip * StripStride(depth) floats.
inline void MultiplyPanels(
    ConstMatrixF a, const float* panels, float* strip, BlockStart start, MatrixF c) {
  const int64_t stride = StripStride(a.cols);
  for (int64_t row = 0; row < a.rows; row += kStrip) {
    const int64_t rows = std::min<int64_t>(kStrip, a.rows - row);
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(a.row(row + r), a.cols, strip + r * stride);
    }
    MultiplyStrip({strip, rows, a.cols, stride}, panels, a.cols * kPanel, start,
                  c.RowRange(row, rows));
  }
}

#if HWY_TARGET != HWY_SCALAR
// target[j * kPanel + i] = rows[i][k + j] for i, j in 0..3.
template <class Row>
HWY_INLINE void Transpose4x4(const Row (&rows)[4], int64_t k, float* target) {
  const hn::FixedTag<float, 4> tag;
  const hn::Repartition<uint64_t, decltype(tag)> pairs;
  const auto r0 = rows[0].Load(tag, k);
  const auto r1 = rows[1].Load(tag, k);
  const auto r2 = rows[2].Load(tag, k);
  const auto r3 = rows[3].Load(tag, k);
  const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(tag, r0, r1));
  const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(tag, r2, r3));
  const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(tag, r0, r1));
  const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(tag, r2, r3));
  hn::StoreU(hn::BitCast(tag, hn::InterleaveLower(pairs, low01, low23)), tag, target);
  hn::StoreU(hn::BitCast(tag, hn::InterleaveUpper(pairs, low01, low23)), tag, target + kPanel);
  hn::StoreU(hn::BitCast(tag, hn::InterleaveLower(pairs, high01, high23)), tag,
             target + 2 * kPanel);
  hn::StoreU(hn::BitCast(tag, hn::InterleaveUpper(pairs, high01, high23)), tag,
             target + 3 * kPanel);
}
#endif

// Rows row(0) .. row(count - 1), as readers hand them out (row_readers-inl.h), of `depth` numbers
// become the columns of one panel [depth, kPanel]; the rest is zero.
template <class RowOf>
HWY_INLINE void PackRows(const RowOf& row, int64_t count, int64_t depth, float* panel) {
  constexpr int64_t kLine = 16;  // elements of k at a time: what is written stays in the L1 cache
  for (int64_t k0 = 0; k0 < depth; k0 += kLine) {
    const int64_t end = std::min(depth, k0 + kLine);
    int64_t c = 0;
#if HWY_TARGET != HWY_SCALAR
    for (; c + 4 <= count; c += 4) {
      const decltype(row(c)) rows[4] = {row(c), row(c + 1), row(c + 2), row(c + 3)};
      int64_t k = k0;
      for (; k + 4 <= end; k += 4) {
        Transpose4x4(rows, k, panel + k * kPanel + c);
      }
      for (; k < end; ++k) {
        for (int64_t i = 0; i < 4; ++i) {
          panel[k * kPanel + c + i] = rows[i].One(k);
        }
      }
    }
#endif
    for (; c < kPanel; ++c) {
      for (int64_t k = k0; k < end; ++k) {
        panel[k * kPanel + c] = c < count ? row(c).One(k) : 0.0F;
      }
    }
  }
}

// The same for the first `count` rows of a reader.
template <class Reader>
void PackPanel(const Reader& rows, int64_t count, int64_t depth, float* panel) {
  PackRows([&](int64_t c) HWY_ATTR { return rows.row(c); }, count, depth, panel);
}

// The first `count` rows of a reader become panels [ceil(count / kPanel), depth, kPanel].
template <class Reader>
void PackPanels(const Reader& rows, int64_t count, int64_t depth, float* panels) {
  for (int64_t c = 0; c < count; c += kPanel) {
    PackPanel(rows.From(c), std::min(kPanel, count - c), depth, panels + c * depth);
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_GEMM_INL_H_
