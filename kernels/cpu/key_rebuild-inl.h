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
#include "kernels/cpu/rows-inl.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

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
  const int64_t rank =
      latents.width;  // at most B's: of a tier's latents the first columns are there
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
                  rebuild.rebuild.cols * kPanel,
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
