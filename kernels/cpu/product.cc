#include "kernels/cpu/product.h"

#include <algorithm>

#include "kernels/cpu/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Tokens that one row of W is multiplied with at once. The rows of W come one at a time, because
// the hardware prefetcher follows a single stream best.
constexpr int kTokensAtOnce = HWY_TARGET <= HWY_AVX3 ? 4 : 2;

// Writes to totals[t], lane by lane, the product x[t] . w. Each token has two sums, so that
// additions need not wait for one another.
template <int kTokens, class Element>
HWY_INLINE void MultiplyRow(const Element* w, ConstMatrixF x, VecF* totals) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF even[kTokens];
  VecF odd[kTokens];
  const auto add = [&](int64_t k, VecF* sums) HWY_ATTR {
    const VecF w_k = InRegister(LoadFloat(tag, w + k));
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      sums[t] = hn::MulAdd(hn::LoadU(tag, x.data + t * x.stride + k), w_k, sums[t]);
    }
  };
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    even[t] = odd[t] = hn::Zero(tag);
  }
  int64_t k = 0;
  for (; k + 2 * lanes <= x.cols; k += 2 * lanes) {
    add(k, even);
    add(k + lanes, odd);
  }
  if (k + lanes <= x.cols) {
    add(k, even);
    k += lanes;
  }
  if (k < x.cols) {
    const VecF w_k = LoadFirst(tag, w + k, x.cols - k);
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      const VecF x_k = LoadFirst(tag, x.data + t * x.stride + k, x.cols - k);
      odd[t] = hn::MulAdd(x_k, w_k, odd[t]);
    }
  }
#pragma GCC unroll 4
  for (int t = 0; t < kTokens; ++t) {
    totals[t] = hn::Add(even[t], odd[t]);
  }
}

// y[t][r] = x[t] . w[r] + bias[r] for kTokens rows of x and so many rows of W that there are at
// most four sums.
template <int kTokens, class Element>
HWY_INLINE void MultiplyGroup(const Element* w, ConstMatrixF x, const float* bias, MatrixF y) {
  const TagF tag;
  VecF totals[4] = {hn::Zero(tag), hn::Zero(tag), hn::Zero(tag), hn::Zero(tag)};
  for (int64_t r = 0; r < y.cols; ++r) {
    MultiplyRow<kTokens>(w + r * x.cols, x, totals + r * kTokens);
  }
  HWY_ALIGN float sums[4];
  StoreSums(tag, totals[0], totals[1], totals[2], totals[3], sums);
  for (int64_t r = 0; r < y.cols; ++r) {
    for (int64_t t = 0; t < kTokens; ++t) {
      const float sum = sums[r * kTokens + t];
      y(t, r) = bias == nullptr ? sum : sum + bias[r];
    }
  }
}

template <int kTokens, class Element>
HWY_INLINE void MultiplyGroups(const Element* w, ConstMatrixF x, const float* bias, MatrixF y) {
  constexpr int64_t kRows = kTokens == 3 ? 1 : 4 / kTokens;
  for (int64_t r = 0; r < y.cols; r += kRows) {
    const int64_t rows = std::min(kRows, y.cols - r);
    MultiplyGroup<kTokens>(w + r * x.cols, x, bias == nullptr ? nullptr : bias + r,
                           y.ColRange(r, rows));
  }
}

// MultiplyGroups for any number of tokens. Those after the first group find the rows of W in the
// cache.
template <class Element>
void MultiplyTokens(const Element* w, ConstMatrixF x, const float* bias, MatrixF y) {
  constexpr int64_t kRows = 4;
  for (int64_t r = 0; r < y.cols; r += kRows) {
    const Element* w_r = w + r * x.cols;
    const float* bias_r = bias == nullptr ? nullptr : bias + r;
    const MatrixF y_r = y.ColRange(r, std::min(kRows, y.cols - r));
    for (int64_t t = 0; t < x.rows; t += kTokensAtOnce) {
      const int64_t tokens = std::min<int64_t>(kTokensAtOnce, x.rows - t);
      const ConstMatrixF x_t = x.RowRange(t, tokens);
      const MatrixF y_t = y_r.RowRange(t, tokens);
      if (tokens == 1) {
        MultiplyGroups<1>(w_r, x_t, bias_r, y_t);
      } else if (tokens == 2) {
        MultiplyGroups<2>(w_r, x_t, bias_r, y_t);
      } else if constexpr (kTokensAtOnce > 2) {
        if (tokens == 3) {
          MultiplyGroups<3>(w_r, x_t, bias_r, y_t);
        } else {
          MultiplyGroups<4>(w_r, x_t, bias_r, y_t);
        }
      }
    }
  }
}

void FewRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  const float* bias = part.bias == nullptr ? nullptr : part.bias + part.begin;
  WithElements(part.weight.dtype, part.weight.data, [&](const auto* w) HWY_ATTR {
    MultiplyTokens(w + part.begin * part.weight.in, x, bias, y);
  });
}

void ManyRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  const int64_t columns = part.end - part.begin;
  const int64_t panels = (columns + kPanel - 1) / kPanel;
  const int64_t blocks = (x.cols + kDepth - 1) / kDepth;
  // shape: packed [panels, depth, kPanel], strip [kStrip, depth]
  const int64_t depth = blocks == 0 ? 0 : (x.cols + blocks - 1) / blocks;
  float* packed = Scratch(ScratchUse::kPanels, panels * kPanel * depth);
  float* strip = Scratch(ScratchUse::kStrip, kStrip * StripStride(depth));
  for (int64_t k = 0; k < x.cols || k == 0; k += depth) {
    const int64_t this_depth = std::min(depth, x.cols - k);
    WithElements(part.weight.dtype, part.weight.data, [&](const auto* w) HWY_ATTR {
      PackPanels(ElementRows(w + part.begin * part.weight.in + k, part.weight.in), columns,
                 this_depth, packed);
    });
    const float* bias = part.bias == nullptr ? nullptr : part.bias + part.begin;
    const BlockStart start = k > 0 ? BlockStart{true, nullptr} : BlockStart{false, bias};
    MultiplyPanels(x.ColRange(k, this_depth), packed, strip, start, y);
    if (depth == 0) {
      break;
    }
  }
}

bool Narrow(const float* source, int64_t count, uint16_t* target) {
  uint32_t lost = 0;
  const auto* bits = reinterpret_cast<const uint32_t*>(source);
  for (int64_t i = 0; i < count; ++i) {
    lost |= bits[i];
    target[i] = static_cast<uint16_t>(bits[i] >> 16);
  }
  return (lost & 0xffffU) == 0;
}

void Round(const float* source, int64_t count, uint16_t* target) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    StoreBF16(RoundToBF16(tag, hn::LoadU(tag, source + i)), target + i);
  }
  for (; i < count; ++i) target[i] = FloatToBF16(source[i]);
}

void RoundInPlace(float* row, int64_t count) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(RoundToBF16(tag, hn::LoadU(tag, row + i)), tag, row + i);
  }
  for (; i < count; ++i) row[i] = BF16ToFloat(FloatToBF16(row[i]));
}

void Widen(const WeightView& weight, int64_t begin, int64_t count, float* target) {
  WithElements(weight.dtype, weight.data, [&](const auto* w) HWY_ATTR {
    CopyToFloat(ElementRows(w, weight.in).row(0), begin, count, target);
  });
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(FewRows);
HWY_EXPORT(ManyRows);
HWY_EXPORT(Narrow);
HWY_EXPORT(Round);
HWY_EXPORT(RoundInPlace);
HWY_EXPORT(Widen);

void MultiplyFewRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  HWY_DYNAMIC_DISPATCH(FewRows)(part, x, y);
}
void MultiplyManyRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  HWY_DYNAMIC_DISPATCH(ManyRows)(part, x, y);
}
bool NarrowToBF16(const float* source, int64_t count, uint16_t* target) {
  return HWY_DYNAMIC_DISPATCH(Narrow)(source, count, target);
}
void RoundToBF16(const float* source, int64_t count, uint16_t* target) {
  HWY_DYNAMIC_DISPATCH(Round)(source, count, target);
}
void RoundToBF16(float* row, int64_t count) { HWY_DYNAMIC_DISPATCH(RoundInPlace)(row, count); }
void WidenRows(const WeightView& weight, int64_t begin, int64_t end, float* target) {
  HWY_DYNAMIC_DISPATCH(Widen)(weight, begin * weight.in, (end - begin) * weight.in, target);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
