// Vector functions that the kernels share, compiled once for each instruction set (Highway): loads
// that convert to float, sums across lanes in a fixed order, and an exponential that keeps NaN.

#include <cstdint>

#if defined(KVC_KERNELS_CPU_SIMD_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_SIMD_INL_H_
#undef KVC_KERNELS_CPU_SIMD_INL_H_
#else
#define KVC_KERNELS_CPU_SIMD_INL_H_
#endif

#include <hwy/highway.h>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "linalg/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

using linalg::HWY_NAMESPACE::InRegister;
using linalg::HWY_NAMESPACE::TagF;
using linalg::HWY_NAMESPACE::VecF;

// Loads Lanes(tag) elements as floats.
template <class D>
HWY_INLINE hn::Vec<D> LoadFloat(D tag, const float* source) {
  return hn::LoadU(tag, source);
}

template <class D>
HWY_INLINE hn::Vec<D> LoadFloat(D tag, const hwy::bfloat16_t* source) {
  const hn::Rebind<hwy::bfloat16_t, D> narrow;
  return hn::PromoteTo(tag, hn::LoadU(narrow, source));
}

template <class D>
HWY_INLINE hn::Vec<D> LoadFloat(D tag, const hwy::float16_t* source) {
#if HWY_TARGET <= HWY_AVX2
  const hn::Rebind<hwy::float16_t, D> narrow;
  return hn::PromoteTo(tag, hn::LoadU(narrow, source));
#else
  // Highway's emulation loses infinity and NaN. Shifting f16's exponent and mantissa into place
  // leaves the value times 2^-112, exactly, subnormals included; exponent 31 becomes 255.
  const hn::Rebind<uint16_t, D> narrow;
  const hn::RebindToUnsigned<D> wide;
  const auto bits =
      hn::PromoteTo(wide, hn::LoadU(narrow, reinterpret_cast<const uint16_t*>(source)));
  const auto sign = hn::ShiftLeft<16>(hn::And(bits, hn::Set(wide, 0x8000U)));
  const auto magnitude = hn::ShiftLeft<13>(hn::And(bits, hn::Set(wide, 0x7fffU)));
  const auto finite =
      hn::BitCast(wide, hn::Mul(hn::BitCast(tag, magnitude), hn::Set(tag, 0x1.0p112F)));
  const auto special = hn::Or(magnitude, hn::Set(wide, 0x7f800000U));
  const auto is_special = hn::Eq(hn::And(bits, hn::Set(wide, 0x7c00U)), hn::Set(wide, 0x7c00U));
  return hn::BitCast(tag, hn::Or(sign, hn::IfThenElse(is_special, special, finite)));
#endif
}

HWY_INLINE float LoadOne(const float* source) { return *source; }
HWY_INLINE float LoadOne(const hwy::bfloat16_t* source) { return BF16ToFloat(source->bits); }
HWY_INLINE float LoadOne(const hwy::float16_t* source) { return F16ToFloat(source->bits); }

// Loads the first `count` < Lanes(tag) elements at `source`, then zeros; reads nothing beyond them.
template <class Element>
HWY_INLINE VecF LoadFirst(TagF tag, const Element* source, int64_t count) {
#if HWY_TARGET <= HWY_AVX3
  if constexpr (sizeof(Element) == 2) {
    const hn::Rebind<uint16_t, TagF> bits;
    const hn::Rebind<Element, TagF> narrow;
    const auto mask = hn::FirstN(bits, static_cast<size_t>(count));
    const auto* raw = reinterpret_cast<const uint16_t*>(source);
    return hn::PromoteTo(tag, hn::BitCast(narrow, hn::MaskedLoad(mask, bits, raw)));
  } else {
    return hn::MaskedLoad(hn::FirstN(tag, static_cast<size_t>(count)), tag, source);
  }
#else
  HWY_ALIGN float padded[hn::MaxLanes(TagF())] = {};
  for (int64_t i = 0; i < count; ++i) {
    padded[i] = LoadOne(source + i);
  }
  return hn::Load(tag, padded);
#endif
}

// Calls body(pointer) with `data` as elements of its dtype. Throws kUnsupported unless that is
// kF32, kF16 or kBF16.
template <class Body>
HWY_INLINE void WithElements(DType dtype, const void* data, const Body& body) {
  if (dtype == DType::kF32) {
    body(static_cast<const float*>(data));
  } else if (dtype == DType::kBF16) {
    body(static_cast<const hwy::bfloat16_t*>(data));
  } else if (dtype == DType::kF16) {
    body(static_cast<const hwy::float16_t*>(data));
  } else {
    KVC_THROW(kUnsupported, "elements: expected F32, F16 or BF16, got {}", SafetensorsName(dtype));
  }
}

// Rounds to nearest bf16, ties to even, kept as floats; NaN stays NaN. FloatToBF16 of
// core/base/dtype.h for vectors.
HWY_INLINE VecF RoundToBF16(TagF tag, VecF v) {
  const hn::RebindToUnsigned<TagF> bits_tag;
  const auto bits = hn::BitCast(bits_tag, v);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(bits_tag, 1));
  const auto up = hn::Add(hn::Add(bits, hn::Set(bits_tag, 0x7fff)), odd);
  const VecF rounded = hn::BitCast(tag, hn::And(up, hn::Set(bits_tag, 0xffff0000U)));
  // Of a NaN the upper bits, and one that says so.
  const auto quiet =
      hn::And(hn::Or(bits, hn::Set(bits_tag, 0x400000U)), hn::Set(bits_tag, 0xffff0000U));
  return hn::IfThenElse(hn::IsNaN(v), hn::BitCast(tag, quiet), rounded);
}

// Stores numbers that are bf16 already.
HWY_INLINE void StoreBF16(VecF v, uint16_t* target) {
  const hn::RebindToUnsigned<TagF> bits_tag;
  const hn::Rebind<uint16_t, TagF> narrow;
  hn::StoreU(hn::DemoteTo(narrow, hn::BitCast(hn::RebindToSigned<TagF>(),
                                              hn::ShiftRight<16>(hn::BitCast(bits_tag, v)))),
             narrow, target);
}

// The ways in which FoldLanes combines lanes.
struct AddLanes {
  template <class V>
  V operator()(V a, V b) const {
    return hn::Add(a, b);
  }
};
struct LargerLanes {
  template <class V>
  V operator()(V a, V b) const {
    return hn::Max(a, b);
  }
};

#if HWY_TARGET != HWY_SCALAR
// Combines the 128-bit blocks of v, the upper half with the lower half until one block is left.
template <class D, class Combine>
HWY_INLINE auto FoldBlocks(D tag, hn::Vec<D> v, Combine combine) {
  if constexpr (hn::MaxLanes(tag) > 4) {
    const hn::Half<D> half;
    return FoldBlocks(half, combine(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), combine);
  } else {
    return v;
  }
}
#endif

// target[i] = all lanes of v_i combined in a fixed order. Four reductions cost little more than
// one.
template <class Combine>
HWY_INLINE void FoldLanes(
    TagF tag, VecF v0, VecF v1, VecF v2, VecF v3, Combine combine, float* target) {
#if HWY_TARGET == HWY_SCALAR
  (void)combine;
  hn::StoreU(v0, tag, target);
  hn::StoreU(v1, tag, target + 1);
  hn::StoreU(v2, tag, target + 2);
  hn::StoreU(v3, tag, target + 3);
#else
  const hn::Repartition<uint64_t, TagF> pairs;
  const auto fold01 = combine(hn::InterleaveLower(tag, v0, v1), hn::InterleaveUpper(tag, v0, v1));
  const auto fold23 = combine(hn::InterleaveLower(tag, v2, v3), hn::InterleaveUpper(tag, v2, v3));
  const auto low =
      hn::InterleaveLower(pairs, hn::BitCast(pairs, fold01), hn::BitCast(pairs, fold23));
  const auto high =
      hn::InterleaveUpper(pairs, hn::BitCast(pairs, fold01), hn::BitCast(pairs, fold23));
  const auto folded = combine(hn::BitCast(tag, low), hn::BitCast(tag, high));
  hn::StoreU(FoldBlocks(tag, folded, combine), hn::FixedTag<float, 4>(), target);
#endif
}

HWY_INLINE void StoreSums(TagF tag, VecF v0, VecF v1, VecF v2, VecF v3, float* target) {
  FoldLanes(tag, v0, v1, v2, v3, AddLanes(), target);
}

HWY_INLINE float SumLanes(TagF tag, VecF v) {
  HWY_ALIGN float sums[4];
  const VecF zero = hn::Zero(tag);
  StoreSums(tag, v, zero, zero, zero, sums);
  return sums[0];
}

// e^x, relative error below 2^-22 for x in [-87, 88]; 0 below, infinity above, NaN for NaN.
// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its Taylor polynomial of degree 7 (remainder 5e-9).
HWY_INLINE VecF Exp(TagF tag, VecF x) {
  const hn::RebindToSigned<TagF> integers;
  const auto too_small = hn::Lt(x, hn::Set(tag, -87.0F));
  const auto too_large = hn::Gt(x, hn::Set(tag, 88.0F));
  const VecF safe = hn::IfThenElse(hn::Or(too_small, too_large), hn::Zero(tag), x);
  const VecF n = hn::Round(hn::Mul(safe, hn::Set(tag, 1.44269504F)));
  VecF r = hn::NegMulAdd(n, hn::Set(tag, 0.693359375F), safe);  // exact: 10 bits of ln 2
  r = hn::NegMulAdd(n, hn::Set(tag, -2.12194440e-4F), r);
  VecF p = hn::Set(tag, 1.0F / 5040);
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F / 720));
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F / 120));
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F / 24));
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F / 6));
  p = hn::MulAdd(p, r, hn::Set(tag, 0.5F));
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F));
  p = hn::MulAdd(p, r, hn::Set(tag, 1.0F));
  const auto exponent =
      hn::ShiftLeft<23>(hn::Add(hn::ConvertTo(integers, n), hn::Set(integers, 127)));
  p = hn::Mul(p, hn::BitCast(tag, exponent));
  p = hn::IfThenZeroElse(too_small, p);
  return hn::IfThenElse(too_large, hn::Inf(tag), p);
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_SIMD_INL_H_
