// Readers of rows: how a kernel sees cached rows, whatever their format (core/base/row_format.h).
//
// A reader hands out rows; a row hands out its numbers as float. Kernels take the reader as a
// parameter, so that a format is one more pair of structs here and one more line in WithRows:
//
//   reader.row(r)                   row r
//   reader.From(r)                  a reader whose row 0 is row r
//   row.Load(tag, k)                numbers k .. k + Lanes(tag) - 1
//   row.LoadFirst(tag, k, count)    `count` < Lanes(tag) of them, then zeros; reads nothing beyond
//   row.One(k)                      number k

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(KVC_KERNELS_CPU_ROW_READERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_ROW_READERS_INL_H_
#undef KVC_KERNELS_CPU_ROW_READERS_INL_H_
#else
#define KVC_KERNELS_CPU_ROW_READERS_INL_H_
#endif

#include <hwy/highway.h>

#include "core/base/error.h"
#include "core/base/row_format.h"
#include "kernels/attention.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Elements that are the numbers: f32, f16, bf16, and float tables.
template <class Element>
struct PlainRow {
  const Element* data;

  template <class D>
  HWY_INLINE hn::Vec<D> Load(D tag, int64_t k) const {
    return LoadFloat(tag, data + k);
  }
  HWY_INLINE VecF LoadFirst(TagF tag, int64_t k, int64_t count) const {
    return HWY_NAMESPACE::LoadFirst(tag, data + k, count);
  }
  HWY_INLINE float One(int64_t k) const { return LoadOne(data + k); }
};

template <class Element>
struct PlainRows {
  const std::byte* data;
  int64_t stride;  // bytes

  HWY_INLINE PlainRow<Element> row(int64_t r) const {
    return {reinterpret_cast<const Element*>(data + r * stride)};
  }
  HWY_INLINE PlainRows From(int64_t r) const { return {data + r * stride, stride}; }
};

// Rows of a matrix, `stride` elements apart.
template <class Element>
HWY_INLINE PlainRows<Element> ElementRows(const Element* data, int64_t stride) {
  return {reinterpret_cast<const std::byte*>(data), stride * static_cast<int64_t>(sizeof(Element))};
}

// int8: codes times the scale that lies before them.
struct Int8Row {
  const int8_t* codes;
  float scale;

  template <class D>
  HWY_INLINE hn::Vec<D> Load(D tag, int64_t k) const {
    const hn::Rebind<int8_t, D> narrow;
    return Scaled(tag, hn::LoadU(narrow, codes + k));
  }
  HWY_INLINE VecF LoadFirst(TagF tag, int64_t k, int64_t count) const {
#if HWY_TARGET <= HWY_AVX3
    const hn::Rebind<int8_t, TagF> narrow;
    return Scaled(
        tag, hn::MaskedLoad(hn::FirstN(narrow, static_cast<size_t>(count)), narrow, codes + k));
#else
    HWY_ALIGN float padded[hn::MaxLanes(TagF())] = {};
    for (int64_t i = 0; i < count; ++i) {
      padded[i] = One(k + i);
    }
    return hn::Load(tag, padded);
#endif
  }
  HWY_INLINE float One(int64_t k) const { return scale * static_cast<float>(codes[k]); }

 private:
  template <class D, class V>
  HWY_INLINE hn::Vec<D> Scaled(D tag, V narrow) const {
    const hn::RebindToSigned<D> wide;
    return hn::Mul(hn::Set(tag, scale), hn::ConvertTo(tag, hn::PromoteTo(wide, narrow)));
  }
};

struct Int8Rows {
  const std::byte* data;
  int64_t stride;  // bytes

  HWY_INLINE Int8Row row(int64_t r) const {
    const std::byte* bytes = data + r * stride;
    float scale = 0.0F;
    std::memcpy(&scale, bytes, sizeof(scale));
    return {reinterpret_cast<const int8_t*>(bytes + sizeof(scale)), scale};
  }
  HWY_INLINE Int8Rows From(int64_t r) const { return {data + r * stride, stride}; }
};

// Calls body(reader) with the reader of the block's format. Throws kUnsupported, by RowFormatName,
// for rows with steps, which decode attention reads by kernels of their own
// (kernels/cpu/code_part.h), and for a format without a name: no row is ever read as another
// format.
template <class Body>
HWY_INLINE void WithRows(const RowBlock& block, const Body& body) {
  const auto* data = static_cast<const std::byte*>(block.data);
  if (block.format == kRowsF32) {
    body(PlainRows<float>{data, block.stride});
  } else if (block.format == kRowsBF16) {
    body(PlainRows<hwy::bfloat16_t>{data, block.stride});
  } else if (block.format == kRowsF16) {
    body(PlainRows<hwy::float16_t>{data, block.stride});
  } else if (block.format == kRowsInt8) {
    body(Int8Rows{data, block.stride});
  } else {
    KVC_THROW(kUnsupported, "attention: expected rows that it can read, got {}",
              RowFormatName(block.format));
  }
}

// target[0..count) = row[k..k+count)
template <class Row>
HWY_INLINE void CopyToFloat(const Row& row, int64_t k, int64_t count, float* target) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(row.Load(tag, k + i), tag, target + i);
  }
  for (; i < count; ++i) {
    target[i] = row.One(k + i);
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_ROW_READERS_INL_H_
