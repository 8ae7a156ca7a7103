#include "kernels/elementwise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "core/base/error.h"
#include "kernels/cpu/for_rows.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/rows-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Calls body(c, load, store) for the vectors of a row of `count` elements; the last one may be
// partial: load reads and store writes only what belongs to the row.
template <class Body>
HWY_INLINE void ForVectors(int64_t count, const Body& body) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t c = 0;
  for (; c + lanes <= count; c += lanes) {
    body(
        c, [tag](const float* p) HWY_ATTR { return hn::LoadU(tag, p); },
        [tag](VecF v, float* p) HWY_ATTR { hn::StoreU(v, tag, p); });
  }
  if (c < count) {
    const int64_t rest = count - c;
    body(
        c, [tag, rest](const float* p) HWY_ATTR { return LoadFirst(tag, p, rest); },
        [tag, rest](VecF v, float* p) HWY_ATTR {
          HWY_ALIGN float lane[hn::MaxLanes(TagF())];
          hn::Store(v, tag, lane);
          std::copy_n(lane, rest, p);
        });
  }
}

void RmsNormRow(const float* x, const float* weight, float epsilon, int64_t count, float* y) {
  const TagF tag;
  const float mean = SumOfSquares(x, count) / static_cast<float>(count);
  const VecF scale = hn::Set(tag, 1.0F / std::sqrt(mean + epsilon));
  ForVectors(count, [&](int64_t c, auto load, auto store) HWY_ATTR {
    store(hn::Mul(hn::Mul(load(x + c), scale), load(weight + c)), y + c);
  });
}

// y = (x - mean) / sqrt(var + epsilon) * weight + bias; y may be x.
void LayerNormRow(const float* x,
                  const float* weight,
                  const float* bias,
                  float epsilon,
                  int64_t count,
                  float* y) {
  const TagF tag;
  VecF sum = hn::Zero(tag);
  ForVectors(count, [&](int64_t c, auto load, auto /*store*/)
                        HWY_ATTR { sum = hn::Add(sum, load(x + c)); });
  const float mean = SumLanes(tag, sum) / static_cast<float>(count);
  ForVectors(count, [&](int64_t c, auto load, auto store)
                        HWY_ATTR { store(hn::Sub(load(x + c), hn::Set(tag, mean)), y + c); });
  const float variance = SumOfSquares(y, count) / static_cast<float>(count);
  const VecF scale = hn::Set(tag, 1.0F / std::sqrt(variance + epsilon));
  ForVectors(count, [&](int64_t c, auto load, auto store) HWY_ATTR {
    store(hn::MulAdd(hn::Mul(load(y + c), scale), load(weight + c), load(bias + c)), y + c);
  });
}

void AddRow(const float* x, int64_t count, float* y) {
  ForVectors(count, [&](int64_t c, auto load, auto store)
                        HWY_ATTR { store(hn::Add(load(x + c), load(y + c)), y + c); });
}

void MultiplyRow(const float* x, int64_t count, float* y) {
  ForVectors(count, [&](int64_t c, auto load, auto store)
                        HWY_ATTR { store(hn::Mul(load(x + c), load(y + c)), y + c); });
}

// z / (1 + e^-z)
HWY_INLINE VecF Silu(VecF z) {
  const TagF tag;
  return hn::Div(z, hn::Add(hn::Set(tag, 1.0F), Exp(tag, hn::Neg(z))));
}

void SiluMulRow(const float* gate, const float* up, int64_t count, float* y) {
  ForVectors(count, [&](int64_t c, auto load, auto store)
                        HWY_ATTR { store(hn::Mul(Silu(load(gate + c)), load(up + c)), y + c); });
}

// 0.5 x (1 + tanh u) = x / (1 + e^(-2u)), u = sqrt(2 / pi) (x + 0.044715 x^3)
void GeluTanhRow(float* x, int64_t count) {
  const TagF tag;
  const VecF twice_root = hn::Set(tag, 1.5957691216F);
  ForVectors(count, [&](int64_t c, auto load, auto store) HWY_ATTR {
    const VecF z = load(x + c);
    const VecF cubic = hn::MulAdd(hn::Mul(z, z), hn::Mul(hn::Set(tag, 0.044715F), z), z);
    const VecF e = Exp(tag, hn::Neg(hn::Mul(twice_root, cubic)));
    store(hn::Div(z, hn::Add(hn::Set(tag, 1.0F), e)), x + c);
  });
}

void RopeRow(
    float* row, int64_t heads, int64_t width, const float* cos, const float* sin, int64_t half) {
  for (int64_t h = 0; h < heads; ++h, row += width) {
    RotateHalves(row, row + half, cos, sin, half);
  }
}

void SoftmaxRow(float* x, int64_t count) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF maxima = hn::Set(tag, x[0]);
  int64_t seen = 0;
  for (; seen + lanes <= count; seen += lanes) maxima = hn::Max(maxima, hn::LoadU(tag, x + seen));
  float largest = hn::GetLane(hn::MaxOfLanes(tag, maxima));
  for (; seen < count; ++seen) largest = std::max(largest, x[seen]);
  float sum = 0.0F;
  VecF total = hn::Zero(tag);
  ForVectors(count, [&](int64_t c, auto load, auto store) HWY_ATTR {
    VecF p = Exp(tag, hn::Sub(load(x + c), hn::Set(tag, largest)));
    if (count - c < lanes) {
      p = hn::IfThenElseZero(hn::FirstN(tag, static_cast<size_t>(count - c)), p);
    }
    total = hn::Add(total, p);
    store(p, x + c);
  });
  sum = SumLanes(tag, total);
  ForVectors(count, [&](int64_t c, auto load, auto store)
                        HWY_ATTR { store(hn::Div(load(x + c), hn::Set(tag, sum)), x + c); });
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(RmsNormRow);
HWY_EXPORT(LayerNormRow);
HWY_EXPORT(AddRow);
HWY_EXPORT(MultiplyRow);
HWY_EXPORT(SiluMulRow);
HWY_EXPORT(GeluTanhRow);
HWY_EXPORT(RopeRow);
HWY_EXPORT(SoftmaxRow);

namespace {

// The elements of a part that is worth a thread.
constexpr int64_t kGrain = 16384;

void CheckSame(const char* name, ConstMatrixF x, ConstMatrixF y) {
  KVC_CHECK(x.rows == y.rows && x.cols == y.cols, kBadShape,
            "{}: expected matrices of one size, got [{}, {}] and [{}, {}]", name, x.rows, x.cols,
            y.rows, y.cols);
}

void CheckWidth(const char* name, std::span<const float> weight, int64_t cols) {
  KVC_CHECK(static_cast<int64_t>(weight.size()) == cols, kBadShape,
            "{}: expected {} weights, got {}", name, cols, weight.size());
}

}  // namespace

void RmsNorm(
    ConstMatrixF x, std::span<const float> weight, float epsilon, MatrixF y, ThreadPool& pool) {
  CheckSame("RmsNorm", x, y);
  CheckWidth("RmsNorm", weight, x.cols);
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(RmsNormRow)(x.row(t), weight.data(), epsilon, x.cols, y.row(t));
  });
}

void LayerNorm(ConstMatrixF x,
               std::span<const float> weight,
               std::span<const float> bias,
               float epsilon,
               MatrixF y,
               ThreadPool& pool) {
  CheckSame("LayerNorm", x, y);
  CheckWidth("LayerNorm", weight, x.cols);
  CheckWidth("LayerNorm", bias, x.cols);
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(LayerNormRow)
    (x.row(t), weight.data(), bias.data(), epsilon, x.cols, y.row(t));
  });
}

void Add(ConstMatrixF x, MatrixF y, ThreadPool& pool) {
  CheckSame("Add", x, y);
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(AddRow)(x.row(t), x.cols, y.row(t));
  });
}

void Multiply(ConstMatrixF x, MatrixF y, ThreadPool& pool) {
  CheckSame("Multiply", x, y);
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(MultiplyRow)(x.row(t), x.cols, y.row(t));
  });
}

void SiluMul(ConstMatrixF gate, ConstMatrixF up, MatrixF y, ThreadPool& pool) {
  CheckSame("SiluMul", gate, y);
  CheckSame("SiluMul", up, y);
  ForRows(y.rows, y.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(SiluMulRow)(gate.row(t), up.row(t), y.cols, y.row(t));
  });
}

void GeluTanh(MatrixF x, ThreadPool& pool) {
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    HWY_DYNAMIC_DISPATCH(GeluTanhRow)(x.row(t), x.cols);
  });
}

void GeluExact(MatrixF x, ThreadPool& pool) {
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    for (int64_t c = 0; c < x.cols; ++c) {
      const float z = x(t, c);
      x(t, c) = 0.5F * z * std::erfc(-z / std::numbers::sqrt2_v<float>);
    }
  });
}

void Rope(MatrixF x,
          int64_t heads,
          std::span<const int32_t> positions,
          ConstMatrixF cos,
          ConstMatrixF sin,
          ThreadPool& pool) {
  const bool fits = heads > 0 && x.cols % heads == 0 && 2 * cos.cols <= x.cols / heads &&
                    sin.cols == cos.cols && std::ssize(positions) == x.rows;
  KVC_CHECK(fits, kBadShape,
            "Rope: expected x [{}, {} heads of 2 * {} angles or more], got x [{}, {}] and cos [{}, "
            "{}]",
            positions.size(), heads, cos.cols, x.rows, x.cols, cos.rows, cos.cols);
  ForRows(x.rows, x.cols, kGrain, pool, [&](int64_t t) {
    const int64_t position = PositionOf("Rope", positions, t, cos.rows);
    HWY_DYNAMIC_DISPATCH(RopeRow)
    (x.row(t), heads, x.cols / heads, cos.row(position), sin.row(position), cos.cols);
  });
}

void SoftmaxRows(MatrixF x) {
  for (int64_t t = 0; t < x.rows && x.cols > 0; ++t) {
    HWY_DYNAMIC_DISPATCH(SoftmaxRow)(x.row(t), x.cols);
  }
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
