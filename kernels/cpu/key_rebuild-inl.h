// Keys from latents, a panel of tokens at a time: product with B, bias, RMS norm, rotation.
//
// Tokens lie in the lanes: a panel holds kPanel tokens as columns, so that a row of B is broadcast,
// a row of the product is one dimension of kPanel keys, and the dot products with queries need no
// sum across lanes. What kv heads have in common, the transposed latents or at least the angles, is
// laid out once for all of them.

#include <algorithm>
#include <cstdint>

#if defined(KVC_KERNELS_CPU_KEY_REBUILD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#undef KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#else
#define KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/base/error.h"
#include "kernels/attention.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/row_readers-inl.h"
#include "kernels/cpu/scratch.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Latents of a panel of tokens; the same for all heads of a latent.
struct LatentPanel {
  int64_t rank = 0;             // of these latents, <= R: of a tier's the first columns are there
  const float* data = nullptr;  // [R, kPanel]; rows beyond `rank` are zero
};

// Their angles; the same for all heads that keep the same tokens.
struct AnglePanel {
  const float* cos = nullptr;  // [r/2, kPanel]
  const float* sin = nullptr;
};

inline int64_t CheckedPosition(int64_t position, const KeyRebuild& rebuild) {
  KVC_CHECK(position >= 0 && position < rebuild.cos.rows, kBadShape,
            "key rebuild: expected a position below {}, got {}; check the model's context length",
            rebuild.cos.rows, position);
  return position;
}

// Rows first .. first + count - 1 of `latents`, count <= kPanel, padded to `rank` columns. This
// thread's until the next panel.
inline LatentPanel LayOutLatents(const RowBlock& latents,
                                 int64_t first,
                                 int64_t count,
                                 int64_t rank) {
  float* columns = Scratch(ScratchUse::kStrip, rank * kPanel);
  if (NeedsSteps(latents.format)) {
    float* rows = Scratch(ScratchUse::kLatentRows, kPanel * latents.width);
    const auto* data = static_cast<const std::byte*>(latents.data) + first * latents.stride;
    DecodeRows(data, latents.format, latents.stride, {rows, count, latents.width}, latents.steps);
    PackPanel(ElementRows(rows, latents.width), count, latents.width, columns);
  } else {
    WithRows(latents, [&](const auto& reader) HWY_ATTR {
      PackPanel(reader.From(first), count, latents.width, columns);
    });
  }
  std::fill(columns + latents.width * kPanel, columns + rank * kPanel, 0.0F);
  return {latents.width, columns};
}

// Angles at `count` <= kPanel positions. This thread's until the next panel.
inline AnglePanel LayOutAngles(const int32_t* positions, int64_t count, const KeyRebuild& rebuild) {
  const int64_t half = rebuild.cos.cols;
  if (half == 0) return {};
  int64_t row[kPanel];
  for (int64_t i = 0; i < count; ++i) {
    row[i] = CheckedPosition(positions[i], rebuild);
  }
  float* cos = Scratch(ScratchUse::kAngles, 2 * half * kPanel);
  float* sin = cos + half * kPanel;
  PackRows([&](int64_t i) { return PlainRow<float>{rebuild.cos.row(row[i])}; }, count, half, cos);
  PackRows([&](int64_t i) { return PlainRow<float>{rebuild.sin.row(row[i])}; }, count, half, sin);
  return {cos, sin};
}

// out [rows, kPanel] = b latents
inline void MultiplyLatents(ConstMatrixF b, const LatentPanel& panel, float* out) {
  static constexpr float kZeros[kPanel] = {};
  MultiplyRows({b.data, b.rows, panel.rank, b.stride}, panel.data, kZeros, 0, out, kPanel);
}

// keys [D, kPanel] = B latents, where some rows of B are unit vectors. The products of the others
// follow one another at the end of `keys`, from where each moves forward to its place: row
// d is written when all that lay there has moved.
inline void CopyAndMultiply(const LatentPanel& panel, const KeyRebuild& rebuild, float* keys) {
  const ConstMatrixF& b = rebuild.rebuild;
  const auto others = std::ssize(rebuild.units.others) / b.cols;
  const float* product = keys + (b.rows - others) * kPanel;
  MultiplyLatents({rebuild.units.others.data(), others, b.cols}, panel,
                  keys + (b.rows - others) * kPanel);
  for (int64_t d = 0; d < b.rows; ++d) {
    const int64_t column = rebuild.units.column[static_cast<size_t>(d)];
    const float* source = column >= 0 ? panel.data + column * kPanel : product;
    product += column >= 0 ? 0 : kPanel;
    if (source != keys + d * kPanel) {
      std::copy_n(source, kPanel, keys + d * kPanel);
    }
  }
}

// keys[d] = (keys[d] + bias[d]) scale weight[d], scale = 1 / sqrt(mean_d (keys[d] + bias[d])^2 +
// epsilon) for each token, or only the first sum without a norm.
inline void AddBiasAndNorm(const KeyRebuild& rebuild, float* keys) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t width = rebuild.rebuild.rows;
  for (int64_t i = 0; i < kPanel; i += lanes) {
    VecF squares = hn::Zero(tag);
    for (int64_t d = 0; d < width; ++d) {
      float* key = keys + d * kPanel + i;
      VecF k = hn::LoadU(tag, key);
      if (rebuild.bias != nullptr) {
        k = hn::Add(k, hn::Set(tag, rebuild.bias[d]));
        hn::StoreU(k, tag, key);
      }
      squares = hn::MulAdd(k, k, squares);
    }
    if (rebuild.norm_weight == nullptr) {
      continue;
    }
    const VecF mean = hn::Div(squares, hn::Set(tag, static_cast<float>(width)));
    const VecF root = hn::Sqrt(hn::Add(mean, hn::Set(tag, rebuild.norm_epsilon)));
    const VecF scale = hn::Div(hn::Set(tag, 1.0F), root);
    for (int64_t d = 0; d < width; ++d) {
      float* key = keys + d * kPanel + i;
      const VecF factor = hn::Mul(scale, hn::Set(tag, rebuild.norm_weight[d]));
      hn::StoreU(hn::Mul(hn::LoadU(tag, key), factor), tag, key);
    }
  }
}

// Every token's (keys[j], keys[j + half]) turned by its angle j.
inline void RotatePanel(const AnglePanel& angles, int64_t half, float* keys) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  for (int64_t i = 0; i < half * kPanel; i += lanes) {
    const VecF a = hn::LoadU(tag, keys + i);
    const VecF b = hn::LoadU(tag, keys + half * kPanel + i);
    const VecF cos = hn::LoadU(tag, angles.cos + i);
    const VecF sin = hn::LoadU(tag, angles.sin + i);
    hn::StoreU(hn::NegMulAdd(b, sin, hn::Mul(a, cos)), tag, keys + i);
    hn::StoreU(hn::MulAdd(a, sin, hn::Mul(b, cos)), tag, keys + half * kPanel + i);
  }
}

// keys [D, kPanel]: the panel's keys of one head as they enter the dot product, tokens in columns.
// What stands in the columns after the panel's tokens is unspecified.
inline void RebuildPanel(const LatentPanel& panel,
                         const AnglePanel& angles,
                         const KeyRebuild& rebuild,
                         float* keys) {
  if (rebuild.units.column.empty()) {
    MultiplyLatents(rebuild.rebuild, panel, keys);
  } else {
    CopyAndMultiply(panel, rebuild, keys);
  }
  if (rebuild.bias != nullptr || rebuild.norm_weight != nullptr) {
    AddBiasAndNorm(rebuild, keys);
  }
  RotatePanel(angles, rebuild.cos.cols, keys);
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_KEY_REBUILD_INL_H_
