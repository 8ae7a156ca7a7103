// Codes of rows in vectors of bytes. Part of code_rows-inl.h, in its pragmas.

namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES {

using TagI = hn::RebindToSigned<TagF>;
using VecI = hn::Vec<TagI>;
using TagU = hn::RebindToUnsigned<TagF>;
using Tag8 = hn::Repartition<uint8_t, TagF>;
using Vec8 = hn::Vec<Tag8>;
using Tag16 = hn::Repartition<int16_t, TagF>;
using Vec16 = hn::Vec<Tag16>;

constexpr int64_t kLanes = static_cast<int64_t>(hn::MaxLanes(TagF()));
constexpr int64_t kBytes = 4 * kLanes;  // of a vector

// Unsigned bytes, and signed ones that they are multiplied by; four to a sum of 32 bits.
#if KVC_CODES_VNNI
struct Codes {
  Vec8 all;
};
HWY_INLINE Codes MakeCodes(Vec8 codes) { return {codes}; }
struct Factors {
  Vec8 all;
};
HWY_INLINE Factors MakeFactors(Vec8 factors) { return {factors}; }
HWY_INLINE VecI AddProducts(VecI sum, const Codes& codes, const Factors& factors) {
  return VecI{_mm512_dpbusd_epi32(sum.raw, codes.all.raw, factors.all.raw)};
}
#else
struct Codes {
  Vec16 even, odd;
};
HWY_INLINE Codes MakeCodes(Vec8 codes) {
  const hn::RebindToUnsigned<Tag16> wide;
  const auto pairs = hn::BitCast(wide, codes);
  return {hn::BitCast(Tag16(), hn::And(pairs, hn::Set(wide, uint16_t{0xff}))),
          hn::BitCast(Tag16(), hn::ShiftRight<8>(pairs))};
}
struct Factors {
  Vec16 even, odd;
};
HWY_INLINE Factors MakeFactors(Vec8 factors) {
  const Vec16 pairs = hn::BitCast(Tag16(), factors);
  return {hn::ShiftRight<8>(hn::ShiftLeft<8>(pairs)), hn::ShiftRight<8>(pairs)};
}
HWY_INLINE VecI Products(Vec16 a, Vec16 b) {
  VecI rest = hn::Zero(TagI());
  const VecI sum = hn::ReorderWidenMulAccumulate(TagI(), a, b, hn::Zero(TagI()), rest);
  return hn::Add(sum, rest);
}
HWY_INLINE VecI AddProducts(VecI sum, const Codes& codes, const Factors& factors) {
  return hn::Add(sum,
                 hn::Add(Products(codes.even, factors.even), Products(codes.odd, factors.odd)));
}
#endif

// Four factors, the same in every lane.
HWY_INLINE Factors SameFactors(const int8_t* four) {
  uint32_t word = 0;
  std::memcpy(&word, four, sizeof(word));
  return MakeFactors(hn::BitCast(Tag8(), hn::Set(TagU(), word)));
}

// A unit is a vector of kBytes codes, one in a byte: kUnitBytes bytes of a row, whose codes of the
// lowest bits come first, then those of the next.
template <int kBits>
struct Unit {
  static constexpr int64_t kUnitBytes = kBytes * kBits / 8;
  static constexpr int64_t kPerByte = 8 / kBits;

  // The column of byte `place` of a unit, counted from the unit's first.
  static constexpr int64_t Column(int64_t place) {
    return place % kUnitBytes * kPerByte + place / kUnitBytes;
  }

  static HWY_INLINE Vec8 Load(const uint8_t* source) {
    const Tag8 tag;
    if constexpr (kBits == 8) {
      return hn::LoadU(tag, source);
    } else {
      return Unpack(Repeated(source));
    }
  }
  // Reads no more than `room` bytes.
  static HWY_INLINE Vec8 LoadFirst(const uint8_t* source, int64_t room) {
    if (room >= kUnitBytes) return Load(source);
    HWY_ALIGN uint8_t padded[kBytes] = {};
    std::memcpy(padded, source, static_cast<size_t>(std::max<int64_t>(room, 0)));
    return Load(padded);
  }

 private:
  // The unit's bytes over and over.
  static HWY_INLINE Vec8 Repeated(const uint8_t* source) {
    const Tag8 tag;
    if constexpr (kUnitBytes == 4) {
      uint32_t word = 0;
      std::memcpy(&word, source, sizeof(word));
      return hn::BitCast(tag, hn::Set(TagU(), word));
    } else if constexpr (kUnitBytes == 8) {
      const hn::Repartition<uint64_t, TagF> wide;
      uint64_t word = 0;
      std::memcpy(&word, source, sizeof(word));
      return hn::BitCast(tag, hn::Set(wide, word));
    } else if constexpr (kUnitBytes == 16) {
      return hn::LoadDup128(tag, source);
    } else {
      const hn::Half<Tag8> half;
      const auto bytes = hn::LoadU(half, source);
      return hn::Combine(tag, bytes, bytes);
    }
  }
  static HWY_INLINE Vec8 Unpack(Vec8 bytes) {
    constexpr int kLog = kUnitBytes == 4 ? 0 : kUnitBytes == 8 ? 1 : kUnitBytes == 16 ? 2 : 3;
    const TagU words;
    const auto copy = hn::ShiftRight<kLog>(hn::Iota(words, 0U));  // of the unit, in this lane
    const auto shift = kBits == 4 ? hn::ShiftLeft<2>(copy) : hn::ShiftLeft<1>(copy);
    const auto low = hn::BitCast(Tag8(), hn::Shr(hn::BitCast(words, bytes), shift));
    return hn::And(low, hn::Set(Tag8(), uint8_t{(1U << kBits) - 1}));
  }
};

// The rows of a tile as one run of their columns sees them.
struct RunRows {
  const uint8_t* first = nullptr;  // the run's bytes of row 0
  const uint8_t* end = nullptr;    // of what may be read
  int64_t stride = 0;
  int64_t count = 0;

  HWY_INLINE const uint8_t* Row(int64_t r) const { return first + std::min(r, count - 1) * stride; }
};

// The first rows of which units may be loaded whole from byte `offset` of the run on: a multiple of
// four, or all.
template <int kBits>
HWY_INLINE int64_t WholeRows(const RunRows& rows, int64_t offset) {
  const int64_t room = rows.end - rows.first - offset - Unit<kBits>::kUnitBytes;
  if (room < 0) return 0;
  const int64_t count = rows.stride > 0 ? room / rows.stride + 1 : rows.count;
  return count >= rows.count ? rows.count : count / 4 * 4;
}

// The codes of rows r .. r + 3 from byte `offset` of the run on; the last row stands for those
// behind it. Other rows than whole ones have a loop of their own: a copy would keep the compiler
// from holding sums in registers.
template <int kBits, bool kWhole>
HWY_INLINE void LoadFour(const RunRows& rows, int64_t r, int64_t offset, Vec8 (&codes)[4]) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const uint8_t* source = rows.Row(r + i) + offset;
    codes[i] =
        kWhole ? Unit<kBits>::Load(source) : Unit<kBits>::LoadFirst(source, rows.end - source);
  }
}

HWY_INLINE RunRows RowsOfRun(
    const RowBlock& block, const CodeRuns& runs, const CodeRun& run, int64_t first, int64_t count) {
  const auto* data = static_cast<const uint8_t*>(block.data);
  return {data + first * block.stride + run.offset,
          data + (block.rows - 1) * block.stride + runs.bytes, block.stride, count};
}

inline int64_t Units(const CodeRun& run) { return (run.end - run.begin + kBytes - 1) / kBytes; }

}  // namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES
