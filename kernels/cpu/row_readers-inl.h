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

// x8, x4, x2: codes times the steps of their columns.
template <int kBits>
struct StepRow {
  const std::byte* codes;
  const float* steps;

  static constexpr int64_t kPerWord = 32 / kBits;  // codes in a word of 32 bits
  static constexpr float kShift = 0.5F - static_cast<float>(1 << (kBits - 1));

  template <class D>
  HWY_INLINE hn::Vec<D> Load(D tag, int64_t k) const {
    return Numbers(tag, Codes(tag, k, static_cast<int64_t>(hn::Lanes(tag))),
                   hn::LoadU(tag, steps + k));
  }
  HWY_INLINE VecF LoadFirst(TagF tag, int64_t k, int64_t count) const {
    return Numbers(tag, Codes(tag, k, count), HWY_NAMESPACE::LoadFirst(tag, steps + k, count));
  }
  HWY_INLINE float One(int64_t k) const {
    return (static_cast<float>(Word(k) >> (k % kPerWord * kBits) & kMask) + kShift) * steps[k];
  }

 private:
  static constexpr uint32_t kMask = (1U << kBits) - 1;

  // The word that holds code k. Rows end with a whole word.
  HWY_INLINE uint32_t Word(int64_t k) const {
    uint32_t word = 0;
    std::memcpy(&word, codes + k / kPerWord * sizeof(word), sizeof(word));
    return word;
  }

  // Codes k .. k + count - 1, k a multiple of the lanes; what lies in the lanes behind is not set.
  template <class D>
  HWY_INLINE hn::Vec<hn::RebindToUnsigned<D>> Codes([[maybe_unused]] D tag,
                                                    int64_t k,
                                                    [[maybe_unused]] int64_t count) const {
    const hn::RebindToUnsigned<D> wide;
    constexpr auto kLanes = static_cast<int64_t>(hn::MaxLanes(D()));
    if constexpr (kLanes > kPerWord) {
      if constexpr (kBits == 8) {
        if (count == kLanes) {
          const hn::Rebind<uint8_t, D> bytes;
          return hn::PromoteTo(wide, hn::LoadU(bytes, reinterpret_cast<const uint8_t*>(codes + k)));
        }
      }
      // Each word in as many lanes as it has codes.
      HWY_ALIGN uint32_t words[kLanes];
      for (int64_t i = 0; i < kLanes; i += kPerWord) {
        const uint32_t word = i < count ? Word(k + i) : 0;
        for (int64_t j = 0; j < kPerWord; ++j) words[i + j] = word;
      }
      return Unpack(wide, hn::Load(wide, words));
    } else {
      return Unpack(wide, hn::Set(wide, Word(k) >> (k % kPerWord * kBits)));
    }
  }

  // Code i % kPerWord of the word in lane i.
  template <class D32>
  static HWY_INLINE hn::Vec<D32> Unpack(D32 wide, hn::Vec<D32> words) {
    const auto place = hn::And(hn::Iota(wide, 0U), hn::Set(wide, uint32_t{kPerWord - 1}));
    return hn::And(hn::Shr(words, hn::Mul(place, hn::Set(wide, uint32_t{kBits}))),
                   hn::Set(wide, kMask));
  }

  template <class D, class V>
  static HWY_INLINE hn::Vec<D> Numbers(D tag, V stored, hn::Vec<D> step) {
    const hn::RebindToSigned<D> whole;
    const auto code = hn::ConvertTo(tag, hn::BitCast(whole, stored));
    return hn::Mul(hn::Add(code, hn::Set(tag, kShift)), step);
  }
};

template <int kBits>
struct StepRows {
  const std::byte* data;
  int64_t stride;  // bytes
  const float* steps;

  HWY_INLINE StepRow<kBits> row(int64_t r) const { return {data + r * stride, steps}; }
  HWY_INLINE StepRows From(int64_t r) const { return {data + r * stride, stride, steps}; }
};

// Mixtures: number by number, for what is not worth more.
struct MixedRow {
  const std::byte* codes;
  const CodeRuns* runs;

  template <class D>
  HWY_INLINE hn::Vec<D> Load(D tag, int64_t k) const {
    HWY_ALIGN float numbers[hn::MaxLanes(D())];
    for (size_t i = 0; i < hn::Lanes(tag); ++i) numbers[i] = One(k + static_cast<int64_t>(i));
    return hn::Load(tag, numbers);
  }
  HWY_INLINE VecF LoadFirst(TagF tag, int64_t k, int64_t count) const {
    HWY_ALIGN float numbers[hn::MaxLanes(TagF())] = {};
    for (int64_t i = 0; i < count; ++i) numbers[i] = One(k + i);
    return hn::Load(tag, numbers);
  }
  HWY_INLINE float One(int64_t k) const {
    for (const CodeRun& run : runs->runs()) {
      if (k >= run.end) continue;
      const int64_t i = k - run.begin;
      const auto byte = static_cast<unsigned>(codes[run.offset + i * run.bits / 8]);
      const unsigned code = byte >> (i * run.bits % 8) & ((1U << run.bits) - 1);
      const float shift = 0.5F - static_cast<float>(1 << (run.bits - 1));
      return (static_cast<float>(code) + shift) * run.steps[i];
    }
    return 0.0F;
  }
};

struct MixedReader {
  const std::byte* data;
  int64_t stride;  // bytes
  const CodeRuns* runs;

  HWY_INLINE MixedRow row(int64_t r) const { return {data + r * stride, runs}; }
  HWY_INLINE MixedReader From(int64_t r) const { return {data + r * stride, stride, runs}; }
};

// Calls body(reader) with the reader of the block's format. Throws kUnsupported, by RowFormatName,
// for a format without a name: no row is ever read as another format.
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
  } else if (block.format == kRowsX8) {
    body(StepRows<8>{data, block.stride, block.steps.data});
  } else if (block.format == kRowsX4) {
    body(StepRows<4>{data, block.stride, block.steps.data});
  } else if (block.format == kRowsX2) {
    body(StepRows<2>{data, block.stride, block.steps.data});
  } else if (IsMixed(block.format)) {
    const CodeRuns runs = RunsOf(block.format, block.width, block.steps);
    body(MixedReader{data, block.stride, &runs});
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
