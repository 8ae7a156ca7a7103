// Keys from latents, a tile at a time: product with B, bias, RMS norm, rotation.

#include <algorithm>
#include <cmath>
#include <cstdint>

#if defined(KVC_KERNELS_CPU_KEY_REBUILD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#undef KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#else
#define KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// (low_j, high_j) turned by the angle whose cosine and sine are c_j, s_j, for j < half.
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

// B^T of a rebuild in panels [ceil(D / kPanel), R, kPanel], this thread's until its next product.
inline const float* PackRebuild(const KeyRebuild& rebuild) {
  const ConstMatrixF& b = rebuild.rebuild;
  const int64_t panels = (b.rows + kPanel - 1) / kPanel;
  float* packed = Scratch(ScratchUse::kPanels, panels * kPanel * b.cols);
  PackPanels(b.data, b.stride, b.rows, b.cols, packed);
  return packed;
}

// keys [count, D] of rows first .. first + count - 1 of `latents`; positions[i] is row first + i's.
inline void RebuildTile(const RowBlock& latents,
                        int64_t first,
                        const int32_t* positions,
                        const KeyRebuild& rebuild,
                        const float* packed,
                        MatrixF keys) {
  const int64_t rank = rebuild.rebuild.cols;
  const int64_t width = rebuild.rebuild.rows;
  const int64_t stride = StripStride(rank);
  float* strip = Scratch(ScratchUse::kStrip, kStrip * stride);
  for (int64_t row = 0; row < keys.rows; row += kStrip) {
    const int64_t rows = std::min<int64_t>(kStrip, keys.rows - row);
    WithElements(latents.dtype, latents.data, [&](const auto* data) HWY_ATTR {
      for (int64_t r = 0; r < rows; ++r) {
        CopyToFloat(data + (first + row + r) * latents.stride, rank, strip + r * stride);
      }
    });
    MultiplyStrip({strip, rows, rank, stride},
                  packed,
                  rank * kPanel,
                  {false, rebuild.bias},
                  keys.RowRange(row, rows));
  }
  for (int64_t row = 0; row < keys.rows; ++row) {
    float* key = keys.row(row);
    if (rebuild.norm_weight != nullptr) {
      const float mean = SumOfSquares(key, width) / static_cast<float>(width);
      const float scale = 1.0F / std::sqrt(mean + rebuild.norm_epsilon);
      for (int64_t d = 0; d < width; ++d) {
        key[d] = key[d] * scale * rebuild.norm_weight[d];
      }
    }
    const int64_t position = positions[row];
    KVC_CHECK(position >= 0 && position < rebuild.cos.rows,
              kBadShape,
              "key rebuild: expected a position below ",
              rebuild.cos.rows,
              ", got ",
              position,
              "; check the model's context length");
    RotateHalves(
        key, key + width / 2, rebuild.cos.row(position), rebuild.sin.row(position), width / 2);
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
