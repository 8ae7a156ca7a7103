// The SIMD product: a tile of C stays in registers while the inner dimension is walked. Both forms
// of it are here, for the Gram matrices of this folder and for the products of kernels/cpu:
//   MultiplyPanelTile  B lies in panels of kPanel columns; a lane is a column of C
//   MultiplyRowTile    A and B lie in rows; lanes are parts of one dot product, summed at the end
// They round differently, and results must keep their bits, so neither replaces the other. What is
// copied into tiles, and in which blocks, is up to the callers. Single-threaded.

#include <cstdint>

#if defined(KVC_LINALG_PRODUCT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_LINALG_PRODUCT_INL_H_
#undef KVC_LINALG_PRODUCT_INL_H_
#else
#define KVC_LINALG_PRODUCT_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace kvc::linalg::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using TagF = hn::ScalableTag<float>;
using VecF = hn::Vec<TagF>;

// Keeps a vector that several products share in a register: GCC would load it again for each.
HWY_INLINE VecF InRegister(VecF v) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC_ACTUAL && HWY_TARGET != HWY_SCALAR
  asm("" : "+v"(v.raw));
#endif
  return v;
}

// Every tile is two vectors wide.
constexpr int kTileVecs = 2;

// sums[r][v] += a(r) b_v for the rows r of a tile, the one step of both forms. `a(r)` returns a
// vector.
template <int kRows, class VectorOfRow>
HWY_INLINE void AddProducts(const VectorOfRow& a,
                            VecF b0,
                            VecF b1,
                            VecF (&sums)[kRows][kTileVecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
    const VecF a_r = a(r);
    sums[r][0] = hn::MulAdd(a_r, b0, sums[r][0]);
    sums[r][1] = hn::MulAdd(a_r, b1, sums[r][1]);
  }
}

// Columns of a panel of B.
constexpr int64_t kPanel = kTileVecs * static_cast<int64_t>(hn::MaxLanes(TagF()));

// c[r] = start[r] + sum_k a(r, k) b[k] for kRows rows, k ascending.
//   a      element (r, k) at a[r * a_stride + k]
//   b      one panel [depth, kPanel], dense
//   start  row r at start + r * start_stride; a stride of 0 gives every row the same start
//   c      row r at c + r * c_stride, kPanel columns
template <int kRows>
HWY_INLINE void MultiplyPanelTile(const float* a,
                                  int64_t a_stride,
                                  const float* b,
                                  int64_t depth,
                                  const float* start,
                                  int64_t start_stride,
                                  float* c,
                                  int64_t c_stride) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kRows][kTileVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) {
      sums[r][v] = hn::LoadU(tag, start + r * start_stride + v * lanes);
    }
  }
  for (int64_t k = 0; k < depth; ++k) {
    const auto element = [=](int r) HWY_ATTR { return hn::Set(TagF(), a[r * a_stride + k]); };
    AddProducts<kRows>(element, hn::LoadU(tag, b), hn::LoadU(tag, b + lanes), sums);
    b += kPanel;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) {
      hn::StoreU(sums[r][v], tag, c + r * c_stride + v * lanes);
    }
  }
}

// c[r * c_stride + v] = a_r . b_v for kRows rows of `a` and kTileVecs rows of `b`. Rows of both lie
// `stride` floats apart, are aligned to vectors and have `count` columns, a multiple of the lanes.
template <int kRows>
HWY_INLINE void MultiplyRowTile(
    const float* a, const float* b, int64_t stride, int64_t count, float* c, int64_t c_stride) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kRows][kTileVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) sums[r][v] = hn::Zero(tag);
  }
  for (int64_t k = 0; k < count; k += lanes) {
    const auto row = [=](int r)
                         HWY_ATTR { return InRegister(hn::Load(TagF(), a + r * stride + k)); };
    AddProducts<kRows>(row, hn::Load(tag, b + k), hn::Load(tag, b + stride + k), sums);
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < kTileVecs; ++v) {
      c[r * c_stride + v] = hn::GetLane(hn::SumOfLanes(tag, sums[r][v]));
    }
  }
}

}  // namespace kvc::linalg::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_LINALG_PRODUCT_INL_H_
