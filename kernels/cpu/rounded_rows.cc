#include "kernels/cpu/rounded_rows.h"

#include <algorithm>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/rounded_rows.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

float Probabilities(const float* scores, const SeenKeys& keys, RowState& state, uint16_t* target) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t begin = keys.hidden / lanes * lanes;
  const int64_t end = std::min(keys.count, (keys.seen + lanes - 1) / lanes * lanes);
  std::fill(target, target + begin, uint16_t{0});
  std::fill(target + end, target + keys.count, uint16_t{0});
  HWY_ALIGN float edge[hn::MaxLanes(TagF())];
  // The scores at i, minus infinity where a key is not seen.
  const auto load = [&](int64_t i) HWY_ATTR {
    if (i >= keys.hidden && i + lanes <= keys.seen) return hn::LoadU(tag, scores + i);
    for (int64_t j = 0; j < lanes; ++j) {
      const bool sees = i + j >= keys.hidden && i + j < keys.seen;
      edge[j] = sees ? scores[i + j] : -std::numeric_limits<float>::infinity();
    }
    return hn::Load(tag, edge);
  };
  VecF largest = hn::Set(tag, state.maximum);
  for (int64_t i = begin; i < end; i += lanes) largest = hn::Max(largest, load(i));
  const VecF maximum = hn::MaxOfLanes(tag, largest);
  VecF total = hn::Zero(tag);
  for (int64_t i = begin; i < end; i += lanes) {
    const VecF p = RoundToBF16(tag, Exp(tag, hn::Sub(load(i), maximum)));
    StoreBF16(p, target + i);
    total = hn::Add(total, p);
  }
  const float shrink = hn::GetLane(Exp(tag, hn::Sub(hn::Set(tag, state.maximum), maximum)));
  state.maximum = hn::GetLane(maximum);
  state.sum = state.sum * shrink + SumLanes(tag, total);
  return shrink;
}

void Shrink(float* row, float factor, const float* more, int64_t count) {
  for (int64_t i = 0; i < count; ++i) row[i] = row[i] * factor + more[i];
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Probabilities);
HWY_EXPORT(Shrink);

float ProbabilitiesOf(const float* scores,
                      const SeenKeys& keys,
                      RowState& state,
                      uint16_t* target) {
  return HWY_DYNAMIC_DISPATCH(Probabilities)(scores, keys, state, target);
}

void ShrinkAndAdd(float* row, float factor, const float* more, int64_t count) {
  HWY_DYNAMIC_DISPATCH(Shrink)(row, factor, more, count);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
