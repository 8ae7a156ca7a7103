// Weighted sums of values in codes. Part of code_rows-inl.h, in its pragmas.

namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES {

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

}  // namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES
