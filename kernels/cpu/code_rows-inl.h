// The kernels of code_part.h for instruction sets with vectors.
//
// No guard: code_part.cc includes the file once more for AVX-512 with VNNI, whose instructions
// HWY_AVX3 does not allow; KVC_CODES names the namespace, KVC_CODES_VNNI is 1 there.

#if KVC_CODES_VNNI
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
#else
HWY_BEFORE_NAMESPACE();
#endif
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

// scores[q][r ..] (+)= those of four rows, for kQueries queries.
template <int kBits, int kQueries, bool kWhole>
HWY_INLINE void ScoreFour(const RunRows& rows,
                          int64_t r,
                          int64_t units,
                          const RunQueries* queries,
                          bool first,
                          float* scores) {
  const TagU words;
  const hn::Repartition<uint64_t, TagF> pairs;
  VecI sums[kQueries];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) sums[q] = hn::Zero(TagI());
  for (int64_t u = 0; u < units; ++u) {
    Vec8 codes[4];
    LoadFour<kBits, kWhole>(rows, r, u * Unit<kBits>::kUnitBytes, codes);
    // Word w of each block of 16 bytes, of four rows: [w]
    const auto a = hn::BitCast(words, codes[0]), b = hn::BitCast(words, codes[1]);
    const auto c = hn::BitCast(words, codes[2]), d = hn::BitCast(words, codes[3]);
    const auto ab0 = hn::BitCast(pairs, hn::InterleaveLower(words, a, b));
    const auto ab1 = hn::BitCast(pairs, hn::InterleaveUpper(words, a, b));
    const auto cd0 = hn::BitCast(pairs, hn::InterleaveLower(words, c, d));
    const auto cd1 = hn::BitCast(pairs, hn::InterleaveUpper(words, c, d));
    const Codes turned[4] = {MakeCodes(hn::BitCast(Tag8(), hn::InterleaveLower(pairs, ab0, cd0))),
                             MakeCodes(hn::BitCast(Tag8(), hn::InterleaveUpper(pairs, ab0, cd0))),
                             MakeCodes(hn::BitCast(Tag8(), hn::InterleaveLower(pairs, ab1, cd1))),
                             MakeCodes(hn::BitCast(Tag8(), hn::InterleaveUpper(pairs, ab1, cd1)))};
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const auto* factors = reinterpret_cast<const uint8_t*>(queries[q].factors) + u * 4 * kBytes;
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) {
        sums[q] =
            AddProducts(sums[q], turned[w], MakeFactors(hn::Load(Tag8(), factors + w * kBytes)));
      }
    }
  }
  const hn::FixedTag<float, 4> four;
  const hn::FixedTag<int32_t, 4> whole;
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    const auto sum = FoldBlocks(TagI(), sums[q], AddLanes());
    const auto twice = hn::Sub(hn::ShiftLeft<1>(sum), hn::Set(whole, queries[q].offset));
    float* target = scores + q * kScoreStride + r;
    const auto before = first ? hn::Zero(four) : hn::LoadU(four, target);
    hn::StoreU(
        hn::MulAdd(hn::ConvertTo(four, twice), hn::Set(four, 0.5F * queries[q].unit), before), four,
        target);
  }
}

// Writes x_i = q_i s_i of a run, zeros up to whole units, and returns their unit.
HWY_INLINE QueryUnit ScaleQuery(const CodeRun& run, const float* query, float* scaled) {
  const TagF tag;
  const int64_t width = run.end - run.begin;
  VecF largest = hn::Zero(tag);
  VecF broken = hn::Zero(tag);  // NaN where a number is not finite
  int64_t i = 0;
  for (; i + kLanes <= width; i += kLanes) {
    const VecF x = hn::Mul(hn::LoadU(tag, query + run.begin + i), hn::LoadU(tag, run.steps + i));
    largest = hn::Max(largest, hn::Abs(x));
    broken = hn::MulAdd(x, hn::Zero(tag), broken);
    hn::StoreU(x, tag, scaled + i);
  }
  float most = hn::GetLane(hn::MaxOfLanes(tag, largest));
  float sum = SumLanes(tag, broken);
  for (; i < width; ++i) {
    scaled[i] = query[run.begin + i] * run.steps[i];
    most = std::max(most, std::abs(scaled[i]));
    sum += scaled[i] * 0.0F;
  }
  std::fill(scaled + width, scaled + (width + kBytes - 1) / kBytes * kBytes, 0.0F);
  if (std::isnan(sum)) return {std::numeric_limits<float>::quiet_NaN(), 0.0F};
  return {most / 127.0F, most > 0.0F ? 127.0F / most : 0.0F};
}

// Writes n of one query's run into factors, in the order of ScoreFour. `scaled` is room for whole
// units of numbers.
template <int kBits>
HWY_INLINE RunQueries
QuantizeQuery(const CodeRun& run, const float* query, float* scaled, int8_t* factors) {
  const TagF tag;
  const TagI whole;
  const hn::Rebind<int8_t, TagF> narrow;
  const QueryUnit unit = ScaleQuery(run, query, scaled);
  const int64_t units = (run.end - run.begin + kBytes - 1) / kBytes;
  const bool broken = std::isnan(unit.unit);
  VecI sum = hn::Zero(whole);
  for (int64_t u = 0; u < units; ++u) {
    HWY_ALIGN int8_t numbers[kBytes];  // by column
    HWY_ALIGN int8_t places[kBytes];
    for (int64_t i = 0; i < kBytes; i += kLanes) {
      const VecF x = broken ? hn::Zero(tag) : hn::LoadU(tag, scaled + u * kBytes + i);
      const VecI n = hn::NearestInt(hn::Mul(x, hn::Set(tag, unit.inverse)));
      sum = hn::Add(sum, n);
      hn::StoreU(hn::DemoteTo(narrow, n), narrow, numbers + i);
    }
    for (int64_t i = 0; i < kBytes; ++i) places[i] = numbers[Unit<kBits>::Column(i)];
    // Word w of a block is four times in the same block of vector w.
    for (int64_t word = 0; word < kBytes / 4; ++word) {
      int8_t* block = factors + (u * 4 + word % 4) * kBytes + word / 4 * 16;
      for (int64_t copy = 0; copy < 4; ++copy) std::memcpy(block + 4 * copy, places + 4 * word, 4);
    }
  }
  const int32_t total = hn::GetLane(hn::SumOfLanes(whole, sum));
  return {factors, unit.unit, ((1 << kBits) - 1) * total};
}

// Probabilities of a tile in whole numbers, for one query.
struct Digits {
  HWY_ALIGN int8_t high[kTile];
  HWY_ALIGN int8_t low[kTile];
  int32_t sum = 0;    // of P_t
  float unit = 0.0F;  // a P of 1
};

// In the order of rows. Corrects the softmax's sum.
HWY_INLINE void MakeDigits(
    const float* scores, Slots slots, int64_t count, float* softmax_sum, Digits& digits) {
  const TagF tag;
  const TagI whole;
  HWY_ALIGN float rows[kTile];
  if (slots.apart == 0) std::copy_n(scores, count, rows);
  for (int64_t r = 0; slots.apart > 0 && r < count; ++r) rows[r] = scores[slots.Of(r)];
  std::fill(rows + count, rows + kTile, 0.0F);
  VecF most = hn::Zero(tag);
  VecF total = hn::Zero(tag);
  for (int64_t r = 0; r < kTile; r += kLanes) {
    const VecF p = hn::Load(tag, rows + r);
    most = hn::Max(most, p);
    total = hn::Add(total, p);
  }
  const float before = SumLanes(tag, total);
  // A softmax that is NaN makes the output so by its sum; whole numbers cannot.
  const bool broken = std::isnan(before);
  const float largest = broken ? 0.0F : hn::GetLane(hn::MaxOfLanes(tag, most));
  const float scale = largest > 0.0F ? kLargestDigits / largest : 0.0F;
  digits.unit = largest / kLargestDigits;
  const hn::Rebind<int8_t, TagF> narrow;
  VecI sum = hn::Zero(whole);
  for (int64_t r = 0; r < kTile; r += kLanes) {
    const VecF share = broken ? hn::Zero(tag) : hn::Load(tag, rows + r);
    const VecI p = hn::NearestInt(hn::Mul(share, hn::Set(tag, scale)));
    const VecI high = hn::ShiftRight<8>(hn::Add(p, hn::Set(whole, 128)));
    hn::StoreU(hn::DemoteTo(narrow, high), narrow, digits.high + r);
    hn::StoreU(hn::DemoteTo(narrow, hn::Sub(p, hn::ShiftLeft<8>(high))), narrow, digits.low + r);
    sum = hn::Add(sum, p);
  }
  digits.sum = hn::GetLane(hn::SumOfLanes(whole, sum));
  *softmax_sum += static_cast<float>(digits.sum) * digits.unit - before;
}

// high, low [k] += the digits of rows r .. r + 3 times their codes in bytes 4 k .. 4 k + 3 of each
// block of a unit, for kQueries queries.
template <int kBits, int kQueries, bool kWhole>
HWY_INLINE void AddFour(const RunRows& rows,
                        int64_t r,
                        int64_t offset,
                        const Digits* digits,
                        VecI (&high)[kQueries][4],
                        VecI (&low)[kQueries][4]) {
  const Tag8 bytes;
  const hn::Repartition<uint16_t, TagF> wide;
  Vec8 codes[4];
  LoadFour<kBits, kWhole>(rows, r, offset, codes);
  const auto ab0 = hn::BitCast(wide, hn::InterleaveLower(bytes, codes[0], codes[1]));
  const auto ab1 = hn::BitCast(wide, hn::InterleaveUpper(bytes, codes[0], codes[1]));
  const auto cd0 = hn::BitCast(wide, hn::InterleaveLower(bytes, codes[2], codes[3]));
  const auto cd1 = hn::BitCast(wide, hn::InterleaveUpper(bytes, codes[2], codes[3]));
  const Codes turned[4] = {MakeCodes(hn::BitCast(bytes, hn::InterleaveLower(wide, ab0, cd0))),
                           MakeCodes(hn::BitCast(bytes, hn::InterleaveUpper(wide, ab0, cd0))),
                           MakeCodes(hn::BitCast(bytes, hn::InterleaveLower(wide, ab1, cd1))),
                           MakeCodes(hn::BitCast(bytes, hn::InterleaveUpper(wide, ab1, cd1)))};
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    const Factors first = SameFactors(digits[q].high + r);
    const Factors second = SameFactors(digits[q].low + r);
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      high[q][k] = AddProducts(high[q][k], turned[k], first);
      low[q][k] = AddProducts(low[q][k], turned[k], second);
    }
  }
}

// totals[place] = sum_t P_t c_t of one unit of columns, for kQueries queries.
template <int kBits, int kQueries>
HWY_INLINE void AddUnit(const RunRows& rows,
                        int64_t offset,
                        const Digits* digits,
                        int32_t* totals) {
  VecI high[kQueries][4];
  VecI low[kQueries][4];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) high[q][k] = low[q][k] = hn::Zero(TagI());
  }
  const int64_t whole = WholeRows<kBits>(rows, offset);
  for (int64_t r = 0; r < whole; r += 4) {
    AddFour<kBits, kQueries, true>(rows, r, offset, digits, high, low);
  }
  for (int64_t r = whole; r < rows.count; r += 4) {
    AddFour<kBits, kQueries, false>(rows, r, offset, digits, high, low);
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) {
      HWY_ALIGN int32_t lanes[kLanes];
      hn::Store(hn::Add(hn::ShiftLeft<8>(high[q][k]), low[q][k]), TagI(), lanes);
      for (int64_t block = 0; block < kLanes / 4; ++block) {
        std::memcpy(totals + q * kBytes + block * 16 + 4 * k, lanes + 4 * block, 16);
      }
    }
  }
}

// outputs[c] += those of a unit's columns, from its totals.
template <int kBits>
HWY_INLINE void FoldUnit(
    const int32_t* totals, const Digits& digits, const float* steps, int64_t count, float* output) {
  constexpr int32_t kZero = 1 << (kBits - 1);
  constexpr int64_t kUnitBytes = Unit<kBits>::kUnitBytes;
  constexpr int64_t kPerByte = Unit<kBits>::kPerByte;
  const int32_t zero = kZero * digits.sum;
  const float half = 0.5F * static_cast<float>(digits.sum);
  HWY_ALIGN float ordered[kBytes];
  for (int64_t p = 0; p < kUnitBytes; ++p) {
    for (int64_t j = 0; j < kPerByte; ++j) {
      ordered[p * kPerByte + j] = static_cast<float>(totals[j * kUnitBytes + p] - zero) + half;
    }
  }
  for (int64_t c = 0; c < count; ++c) output[c] += ordered[c] * (steps[c] * digits.unit);
}

// Queries that AddUnit has sums of in registers.
constexpr int kSumQueries = HWY_TARGET <= HWY_AVX3 ? 3 : 1;

template <int kBits, int kQueries>
HWY_INLINE void AddRun(const RunRows& rows,
                       const CodeRun& run,
                       const Digits* digits,
                       int64_t first_query,
                       const HeadState& state) {
  HWY_ALIGN int32_t totals[kQueries * kBytes];
  for (int64_t column = run.begin; column < run.end; column += kBytes) {
    const int64_t offset = (column - run.begin) * kBits / 8;
    AddUnit<kBits, kQueries>(rows, offset, digits, totals);
    for (int q = 0; q < kQueries; ++q) {
      FoldUnit<kBits>(totals + q * kBytes, digits[q], run.steps + (column - run.begin),
                      std::min(kBytes, run.end - column),
                      state.partial(first_query + q) + kPartialHeader + column);
    }
  }
}

template <int kBits>
void AddRunOfQueries(const RunRows& rows,
                     const CodeRun& run,
                     const Digits* digits,
                     const HeadState& state) {
  int64_t q = 0;
  for (; q + kSumQueries <= state.count; q += kSumQueries) {
    AddRun<kBits, kSumQueries>(rows, run, digits + q, q, state);
  }
  for (; q < state.count; ++q) AddRun<kBits, 1>(rows, run, digits + q, q, state);
}

template <int kBits, int kQueries>
void ScoreQueriesOfRun(
    const RunRows& rows, int64_t units, const RunQueries* queries, bool first, float* scores) {
  // The last unit's place decides.
  const int64_t whole = WholeRows<kBits>(rows, (units - 1) * Unit<kBits>::kUnitBytes);
  for (int64_t r = 0; r < whole; r += 4) {
    ScoreFour<kBits, kQueries, true>(rows, r, units, queries, first, scores);
  }
  for (int64_t r = whole; r < rows.count; r += 4) {
    ScoreFour<kBits, kQueries, false>(rows, r, units, queries, first, scores);
  }
}

template <int kBits>
void ScoreRun(const RunRows& rows,
              int64_t width,
              const RunQueries* queries,
              bool first,
              const HeadState& state) {
  const int64_t units = (width + kBytes - 1) / kBytes;
  int64_t q = 0;
  for (; q + 3 <= state.count; q += 3) {
    float* scores = state.scores + q * kScoreStride;
    ScoreQueriesOfRun<kBits, 3>(rows, units, queries + q, first, scores);
  }
  for (; q < state.count; ++q) {
    float* scores = state.scores + q * kScoreStride;
    ScoreQueriesOfRun<kBits, 1>(rows, units, queries + q, first, scores);
  }
}

HWY_INLINE RunRows RowsOfRun(
    const RowBlock& block, const CodeRuns& runs, const CodeRun& run, int64_t first, int64_t count) {
  const auto* data = static_cast<const uint8_t*>(block.data);
  return {data + first * block.stride + run.offset,
          data + (block.rows - 1) * block.stride + runs.bytes, block.stride, count};
}

inline int64_t Units(const CodeRun& run) { return (run.end - run.begin + kBytes - 1) / kBytes; }

// Floats of scratch for the queries of a head: factors, what they are made of, and RunQueries.
inline int64_t QueryFloats(const CodeRuns& runs, int64_t queries) {
  int64_t units = 0;
  int64_t most = 0;
  for (const CodeRun& run : runs.runs()) {
    units += Units(run);
    most = std::max(most, Units(run));
  }
  constexpr int64_t kFloats = sizeof(RunQueries) / sizeof(float);
  return queries * (runs.count * kFloats + units * kBytes) + most * kBytes;
}

inline const RunQueries* QuantizeQueries(const CodeRuns& runs,
                                         const HeadState& state,
                                         float* scratch) {
  int64_t units = 0;
  int64_t most = 0;
  for (const CodeRun& run : runs.runs()) {
    units += Units(run);
    most = std::max(most, Units(run));
  }
  auto* factors = reinterpret_cast<int8_t*>(scratch);
  float* scaled = scratch + state.count * units * kBytes;
  auto* queries = reinterpret_cast<RunQueries*>(scaled + most * kBytes);
  RunQueries* next = queries;
  for (const CodeRun& run : runs.runs()) {
    for (int64_t q = 0; q < state.count; ++q, ++next) {
      const float* query = state.queries + q * state.stride;
      *next = run.bits == 8   ? QuantizeQuery<8>(run, query, scaled, factors)
              : run.bits == 4 ? QuantizeQuery<4>(run, query, scaled, factors)
                              : QuantizeQuery<2>(run, query, scaled, factors);
      factors += Units(run) * 4 * kBytes;
    }
  }
  return queries;
}

// state.scores of a tile's rows, each at its own number.
inline void ScoreCodes(const RowBlock& keys,
                       const CodeRuns& runs,
                       const RunQueries* queries,
                       int64_t first,
                       int64_t count,
                       const HeadState& state) {
  if (runs.count == 0) {
    for (int64_t q = 0; q < state.count; ++q)
      std::fill_n(state.scores + q * kScoreStride, count, 0.0F);
  }
  bool first_run = true;
  for (const CodeRun& run : runs.runs()) {
    const RunRows rows = RowsOfRun(keys, runs, run, first, count);
    const int64_t width = run.end - run.begin;
    if (run.bits == 8) ScoreRun<8>(rows, width, queries, first_run, state);
    if (run.bits == 4) ScoreRun<4>(rows, width, queries, first_run, state);
    if (run.bits == 2) ScoreRun<2>(rows, width, queries, first_run, state);
    queries += state.count;
    first_run = false;
  }
}

// Adds a tile's values to every query's output, which shrinks first.
inline void AddCodes(const RowBlock& values,
                     const CodeRuns& runs,
                     int64_t first,
                     int64_t count,
                     Slots slots,
                     const HeadState& state,
                     const float* shrink,
                     float* scratch) {
  auto* digits = reinterpret_cast<Digits*>(scratch);
  for (int64_t q = 0; q < state.count; ++q) {
    float* partial = state.partial(q);
    MakeDigits(state.scores + q * kScoreStride, slots, count, partial + 1, digits[q]);
    for (int64_t c = 0; c < state.value_width; ++c) partial[kPartialHeader + c] *= shrink[q];
  }
  for (const CodeRun& run : runs.runs()) {
    const RunRows rows = RowsOfRun(values, runs, run, first, count);
    if (run.bits == 8) AddRunOfQueries<8>(rows, run, digits, state);
    if (run.bits == 4) AddRunOfQueries<4>(rows, run, digits, state);
    if (run.bits == 2) AddRunOfQueries<2>(rows, run, digits, state);
  }
}

inline int64_t DigitFloats(int64_t queries) {
  return queries * static_cast<int64_t>(sizeof(Digits) / sizeof(float));
}

// These functions, for the code outside that chooses among instruction sets.
inline constexpr CodeKernels kKernels = {QueryFloats, QuantizeQueries, ScoreCodes, DigitFloats,
                                         AddCodes};

}  // namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES
HWY_AFTER_NAMESPACE();
#undef KVC_CODES
#undef KVC_CODES_VNNI
