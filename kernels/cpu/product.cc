#include "kernels/cpu/product.h"

#include <algorithm>

#include "kernels/cpu/scratch.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/product.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Rows of W that are multiplied by kTokens rows of x at once: as many sums as registers hold.
constexpr int RowsAtOnce(int tokens) {
  if (HWY_TARGET <= HWY_AVX3) {
    return tokens <= 3 ? 8 : 4;
  }
  return tokens == 1 ? 8 : tokens <= 3 ? 4 : 2;
}

// y[t][r] = x[t] . w[r] (+ bias[r]) for kRows rows w [kRows, in] and kTokens rows of x.
template <int kRows, int kTokens, class Element>
HWY_INLINE void DotBlock(const Element* w, ConstMatrixF x, const float* bias, MatrixF y) {
  constexpr int kSums = kRows * kTokens;
  constexpr int kPadded = (kSums + 3) / 4 * 4;
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t in = x.cols;
  VecF sums[kPadded];
#pragma GCC unroll 32
  for (int i = 0; i < kPadded; ++i) {
    sums[i] = hn::Zero(tag);
  }
  int64_t k = 0;
  for (; k + lanes <= in; k += lanes) {
    VecF x_k[kTokens];
#pragma GCC unroll 4
    for (int t = 0; t < kTokens; ++t) {
      x_k[t] = hn::LoadU(tag, x.data + t * x.stride + k);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      // The same place of the next block of rows, which follows this one in memory.
      hwy::Prefetch(w + (r + kRows) * in + k);
      const VecF w_rk = LoadFloat(tag, w + r * in + k);
#pragma GCC unroll 4
      for (int t = 0; t < kTokens; ++t) {
        sums[r * kTokens + t] = hn::MulAdd(x_k[t], w_rk, sums[r * kTokens + t]);
      }
    }
  }
  HWY_ALIGN float totals[kPadded];
#pragma GCC unroll 8
  for (int i = 0; i < kPadded; i += 4) {
    StoreSums(tag, sums[i], sums[i + 1], sums[i + 2], sums[i + 3], totals + i);
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kTokens; ++t) {
      float total = totals[r * kTokens + t];
      for (int64_t rest = k; rest < in; ++rest) {
        total += x(t, rest) * LoadOne(w + r * in + rest);
      }
      y(t, r) = bias == nullptr ? total : total + bias[r];
    }
  }
}

template <int kTokens, class Element>
void DotRows(const Element* w, int64_t rows, ConstMatrixF x, const float* bias, MatrixF y) {
  constexpr int kRows = RowsAtOnce(kTokens);
  int64_t r = 0;
  for (; r + kRows <= rows; r += kRows) {
    const float* bias_r = bias == nullptr ? nullptr : bias + r;
    DotBlock<kRows, kTokens>(w + r * x.cols, x, bias_r, y.ColRange(r, kRows));
  }
  for (; r < rows; ++r) {
    const float* bias_r = bias == nullptr ? nullptr : bias + r;
    DotBlock<1, kTokens>(w + r * x.cols, x, bias_r, y.ColRange(r, 1));
  }
}

template <class Element>
void DotTokens(const Element* w, int64_t rows, ConstMatrixF x, const float* bias, MatrixF y) {
  // Four tokens at a time; the next four find this part of W in the cache.
  for (int64_t t = 0; t < x.rows; t += 4) {
    const int64_t tokens = std::min<int64_t>(4, x.rows - t);
    const ConstMatrixF x_t = x.RowRange(t, tokens);
    const MatrixF y_t = y.RowRange(t, tokens);
    if (tokens == 1) {
      DotRows<1>(w, rows, x_t, bias, y_t);
    } else if (tokens == 2) {
      DotRows<2>(w, rows, x_t, bias, y_t);
    } else if (tokens == 3) {
      DotRows<3>(w, rows, x_t, bias, y_t);
    } else {
      DotRows<4>(w, rows, x_t, bias, y_t);
    }
  }
}

void FewRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  const float* bias = part.bias == nullptr ? nullptr : part.bias + part.begin;
  WithElements(part.weight.dtype, part.weight.data, [&](const auto* w) HWY_ATTR {
    DotTokens(w + part.begin * part.weight.in, part.end - part.begin, x, bias, y);
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
      PackPanels(w + part.begin * part.weight.in + k, part.weight.in, columns, this_depth, packed);
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

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(FewRows);
HWY_EXPORT(ManyRows);
HWY_EXPORT(Narrow);

void MultiplyFewRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  HWY_DYNAMIC_DISPATCH(FewRows)(part, x, y);
}
void MultiplyManyRows(const ProductPart& part, ConstMatrixF x, MatrixF y) {
  HWY_DYNAMIC_DISPATCH(ManyRows)(part, x, y);
}
bool NarrowToBF16(const float* source, int64_t count, uint16_t* target) {
  return HWY_DYNAMIC_DISPATCH(Narrow)(source, count, target);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
