#include "kernels/output_rows.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/output_rows.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Calls body(load, store) for the vectors of a row of `count` elements; load reads elements at the
// vector's place of an array, zeros behind the row's end, where store writes nothing.
template <class Body>
HWY_INLINE void ForVectors(int64_t count, const Body& body) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t c = 0;
  for (; c + lanes <= count; c += lanes) {
    body([c](const float* p) HWY_ATTR { return hn::LoadU(TagF(), p + c); },
         [c](VecF v, float* p) HWY_ATTR { hn::StoreU(v, TagF(), p + c); });
  }
  if (c == count) return;
  const int64_t rest = count - c;
  body([c, rest](const float* p) HWY_ATTR { return LoadFirst(TagF(), p + c, rest); },
       [c, rest](VecF v, float* p) HWY_ATTR {
         HWY_ALIGN float lane[hn::MaxLanes(TagF())];
         hn::Store(v, TagF(), lane);
         std::copy_n(lane, rest, p + c);
       });
}

// 0 for what is negative; NaN stays.
HWY_INLINE VecF AtLeastZero(VecF v) {
  const VecF zero = hn::Zero(TagF());
  return hn::IfThenElse(hn::Lt(v, zero), zero, v);
}

// Sum or maximum of two vectors; a NaN of either stays.
HWY_INLINE VecF Reduced(LossReduction reduction, VecF sum, VecF more) {
  if (reduction == LossReduction::kSum) return hn::Add(sum, more);
  const auto keeps = hn::Or(hn::Lt(more, sum), hn::IsNaN(sum));
  return hn::IfThenElse(keeps, sum, more);
}

// e^x - 1 for x <= 0, given e^x.
HWY_INLINE VecF ExpM1(VecF x, VecF exp) {
  const TagF tag;
  const VecF one = hn::Set(tag, 1.0F);
  VecF p = hn::Set(tag, 1.0F / 5040);
  p = hn::MulAdd(p, x, hn::Set(tag, 1.0F / 720));
  p = hn::MulAdd(p, x, hn::Set(tag, 1.0F / 120));
  p = hn::MulAdd(p, x, hn::Set(tag, 1.0F / 24));
  p = hn::MulAdd(p, x, hn::Set(tag, 1.0F / 6));
  p = hn::MulAdd(p, x, hn::Set(tag, 0.5F));
  p = hn::MulAdd(p, x, one);
  const auto is_small = hn::Gt(x, hn::Set(tag, -0.35F));
  return hn::IfThenElse(is_small, hn::Mul(p, x), hn::Sub(exp, one));
}

void Dropped(const DroppedTokens& tokens, LossReduction reduction, float* sums) {
  const TagF tag;
  const VecF one = hn::Set(tag, 1.0F);
  ForVectors(tokens.attention.cols, [&](auto load, auto store) HWY_ATTR {
    const VecF norm = load(tokens.norms.data());
    VecF sum = load(sums);
    for (int64_t i = 0; i < tokens.attention.rows; ++i) {
      const VecF a = load(tokens.attention.row(i));
      const VecF share = hn::Div(a, hn::Sub(one, a));
      const VecF cross = load(tokens.crosses.row(i));
      const VecF square =
          AtLeastZero(hn::Add(hn::Sub(norm, hn::Add(cross, cross)), hn::Set(tag, tokens.owns[i])));
      sum = Reduced(reduction, sum, hn::Mul(hn::Mul(share, share), square));
    }
    store(sum, sums);
  });
}

// Attention below this counts as none: e^-eps may be 0 here, and is far less than what is above.
constexpr float kLeastAttention = 1e-30F;

// A row of WeighReplaced.
void Weigh(const float* attention,
           const float* eps,
           int64_t count,
           bool first_order,
           float* changes,
           float* values) {
  const TagF tag;
  const VecF zero = hn::Zero(tag);
  const VecF one = hn::Set(tag, 1.0F);
  ForVectors(count, [&](auto load, auto store) HWY_ATTR {
    const VecF a = load(attention);
    const VecF e = eps == nullptr ? zero : load(eps);
    if (first_order || eps == nullptr) {
      store(hn::Mul(a, e), changes);
      store(a, values);
      return;
    }
    // With f = e^-|eps| neither of the two forms overflows.
    const VecF down = hn::Neg(hn::Abs(e));
    const VecF f = Exp(tag, down);
    const VecF less = ExpM1(down, f);  // f - 1
    const VecF rest = hn::Sub(one, a);
    const auto rises = hn::Gt(e, zero);
    const VecF sum = hn::IfThenElse(rises, hn::MulAdd(rest, f, a), hn::MulAdd(a, f, rest));
    const auto seen = hn::Gt(a, hn::Set(tag, kLeastAttention));
    const VecF share = hn::IfThenElse(seen, hn::Div(a, sum), hn::IfThenElseZero(hn::IsNaN(a), a));
    const VecF change = hn::Mul(share, less);
    store(hn::IfThenElse(rises, hn::Neg(change), change), changes);
    store(hn::IfThenElse(rises, share, hn::Mul(share, f)), values);
  });
}

void Replaced(const ReplacedTokens& tokens, LossReduction reduction, float* sums) {
  const TagF tag;
  const bool moves = !tokens.moved.empty();
  ForVectors(tokens.changes.cols, [&](auto load, auto store) HWY_ATTR {
    const VecF value_cross = moves ? load(tokens.value_cross.data()) : hn::Zero(tag);
    const VecF moved = moves ? load(tokens.moved.data()) : hn::Zero(tag);
    VecF sum = load(sums);
    for (int64_t i = 0; i < tokens.changes.rows; ++i) {
      const VecF c = load(tokens.changes.row(i));
      VecF loss = hn::Mul(hn::Mul(c, c), load(tokens.squares.row(i)));
      if (moves) {
        const VecF w = load(tokens.values.row(i));
        const VecF cross = hn::Sub(value_cross, load(tokens.output_cross.row(i)));
        loss = hn::MulAdd(w, hn::MulAdd(hn::Add(c, c), cross, hn::Mul(w, moved)), loss);
      }
      sum = Reduced(reduction, sum, AtLeastZero(loss));
    }
    store(sum, sums);
  });
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Dropped);
HWY_EXPORT(Weigh);
HWY_EXPORT(Replaced);

void ReduceDropped(const DroppedTokens& tokens, LossReduction reduction, std::span<float> sums) {
  HWY_DYNAMIC_DISPATCH(Dropped)(tokens, reduction, sums.data());
}

void WeighReplaced(ConstMatrixF attention,
                   ConstMatrixF eps,
                   bool first_order,
                   const ReplacementWeights& weights) {
  for (int64_t i = 0; i < attention.rows; ++i) {
    HWY_DYNAMIC_DISPATCH(Weigh)
    (attention.row(i), eps.data == nullptr ? nullptr : eps.row(i), attention.cols, first_order,
     weights.changes.row(i), weights.values.row(i));
  }
}

void ReduceReplaced(const ReplacedTokens& tokens, LossReduction reduction, std::span<float> sums) {
  HWY_DYNAMIC_DISPATCH(Replaced)(tokens, reduction, sums.data());
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
