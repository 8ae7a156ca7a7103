// Arithmetic on one row that the row-wise operations share.

#include <cstdint>

#if defined(KVC_KERNELS_CPU_ROWS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_ROWS_INL_H_
#undef KVC_KERNELS_CPU_ROWS_INL_H_
#else
#define KVC_KERNELS_CPU_ROWS_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Turns the pairs (low_j, high_j), j < half, by the angles with cosine c_j and sine s_j.
HWY_INLINE void RotateHalves(
    float* low, float* high, const float* c, const float* s, int64_t half) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t j = 0;
  for (; j + lanes <= half; j += lanes) {
    const VecF a = hn::LoadU(tag, low + j);
    const VecF b = hn::LoadU(tag, high + j);
    const VecF cos = hn::LoadU(tag, c + j);
    const VecF sin = hn::LoadU(tag, s + j);
    hn::StoreU(hn::NegMulAdd(b, sin, hn::Mul(a, cos)), tag, low + j);
    hn::StoreU(hn::MulAdd(a, sin, hn::Mul(b, cos)), tag, high + j);
  }
  for (; j < half; ++j) {
    const float a = low[j];
    const float b = high[j];
    low[j] = a * c[j] - b * s[j];
    high[j] = b * c[j] + a * s[j];
  }
}

// sum_i x_i^2
HWY_INLINE float SumOfSquares(const float* x, int64_t count) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sum = hn::Zero(tag);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const VecF x_i = hn::LoadU(tag, x + i);
    sum = hn::MulAdd(x_i, x_i, sum);
  }
  float total = SumLanes(tag, sum);
  for (; i < count; ++i) {
    total += x[i] * x[i];
  }
  return total;
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_ROWS_INL_H_
