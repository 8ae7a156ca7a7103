// Scores over keys in codes. Part of code_rows-inl.h, in its pragmas.

namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES {

// scores[q][r ..] (+)= those of four rows, for kQueries queries, whose digits lie `apart`.
template <int kBits, int kQueries, bool kWhole>
HWY_INLINE void ScoreFour(const RunRows& rows,
                          int64_t r,
                          int64_t units,
                          const RunQueries* queries,
                          int64_t apart,
                          bool first,
                          float* scores) {
  constexpr int kDigits = static_cast<int>(QueryDigits(kBits));
  constexpr int kSums = kDigits * kQueries;
  const TagU words;
  const hn::Repartition<uint64_t, TagF> pairs;
  VecI sums[kSums];  // [query][digit]
#pragma GCC unroll 8
  for (int s = 0; s < kSums; ++s) sums[s] = hn::Zero(TagI());
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
#pragma GCC unroll 8
    for (int s = 0; s < kSums; ++s) {
      const RunQueries& digit = queries[s % kDigits * apart + s / kDigits];
      const auto* factors = reinterpret_cast<const uint8_t*>(digit.factors) + u * 4 * kBytes;
#pragma GCC unroll 4
      for (int w = 0; w < 4; ++w) {
        sums[s] =
            AddProducts(sums[s], turned[w], MakeFactors(hn::Load(Tag8(), factors + w * kBytes)));
      }
    }
  }
  const hn::FixedTag<float, 4> four;
  const hn::FixedTag<int32_t, 4> whole;
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    float* target = scores + q * kScoreStride + r;
    auto score = first ? hn::Zero(four) : hn::LoadU(four, target);
#pragma GCC unroll 2
    for (int d = 0; d < kDigits; ++d) {
      const RunQueries& digit = queries[d * apart + q];
      const auto sum = FoldBlocks(TagI(), sums[q * kDigits + d], AddLanes());
      const auto twice = hn::Sub(hn::ShiftLeft<1>(sum), hn::Set(whole, digit.offset));
      score = hn::MulAdd(hn::ConvertTo(four, twice), hn::Set(four, 0.5F * digit.unit), score);
    }
    hn::StoreU(score, four, target);
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
  return UnitOf(most, !std::isnan(sum), run.bits);
}

// Writes a unit's factors, by column, in the order of ScoreFour.
template <int kBits>
HWY_INLINE void PlaceFactors(const int8_t* numbers, int8_t* factors) {
  HWY_ALIGN int8_t places[kBytes];
  for (int64_t i = 0; i < kBytes; ++i) places[i] = numbers[Unit<kBits>::Column(i)];
  // Word w of a block is four times in the same block of vector w.
  for (int64_t word = 0; word < kBytes / 4; ++word) {
    int8_t* block = factors + word % 4 * kBytes + word / 4 * 16;
    for (int64_t copy = 0; copy < 4; ++copy) std::memcpy(block + 4 * copy, places + 4 * word, 4);
  }
}

// Writes n of one query's run into factors, digit by digit, and RunQueries of the digits, `apart`
// from each other. `scaled` is room for whole units of numbers.
template <int kBits>
HWY_INLINE void QuantizeQuery(const CodeRun& run,
                              const float* query,
                              float* scaled,
                              int8_t* factors,
                              RunQueries* queries,
                              int64_t apart) {
  constexpr int64_t kDigits = QueryDigits(kBits);
  const TagF tag;
  const TagI whole;
  const hn::Rebind<int8_t, TagF> narrow;
  const QueryUnit unit = ScaleQuery(run, query, scaled);
  const int64_t units = Units(run);
  const bool broken = std::isnan(unit.unit);
  VecI sums[2] = {hn::Zero(whole), hn::Zero(whole)};
  for (int64_t u = 0; u < units; ++u) {
    HWY_ALIGN int8_t numbers[kDigits][kBytes];  // by column
    for (int64_t i = 0; i < kBytes; i += kLanes) {
      const VecF x = broken ? hn::Zero(tag) : hn::LoadU(tag, scaled + u * kBytes + i);
      const VecI n = hn::NearestInt(hn::Mul(x, hn::Set(tag, unit.inverse)));
      VecI digit = n;
      if constexpr (kDigits == 2) {
        digit = hn::NearestInt(hn::Mul(hn::ConvertTo(tag, n), hn::Set(tag, 1.0F / kQueryBase)));
        const VecI lower = hn::Sub(hn::Add(n, digit), hn::ShiftLeft<8>(digit));
        sums[1] = hn::Add(sums[1], lower);
        hn::StoreU(hn::DemoteTo(narrow, lower), narrow, numbers[kDigits - 1] + i);
      }
      sums[0] = hn::Add(sums[0], digit);
      hn::StoreU(hn::DemoteTo(narrow, digit), narrow, numbers[0] + i);
    }
    for (int64_t d = 0; d < kDigits; ++d) {
      PlaceFactors<kBits>(numbers[d], factors + (d * units + u) * 4 * kBytes);
    }
  }
  for (int64_t d = 0; d < kDigits; ++d) {
    const float own = d + 1 < kDigits ? kQueryBase * unit.unit : unit.unit;
    const int32_t total = hn::GetLane(hn::SumOfLanes(whole, sums[d]));
    queries[d * apart] = {factors + d * units * 4 * kBytes, own, ((1 << kBits) - 1) * total};
  }
}

template <int kBits, int kQueries>
void ScoreQueriesOfRun(const RunRows& rows,
                       int64_t units,
                       const RunQueries* queries,
                       int64_t apart,
                       bool first,
                       float* scores) {
  // The last unit's place decides.
  const int64_t whole = WholeRows<kBits>(rows, (units - 1) * Unit<kBits>::kUnitBytes);
  for (int64_t r = 0; r < whole; r += 4) {
    ScoreFour<kBits, kQueries, true>(rows, r, units, queries, apart, first, scores);
  }
  for (int64_t r = whole; r < rows.count; r += 4) {
    ScoreFour<kBits, kQueries, false>(rows, r, units, queries, apart, first, scores);
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
    ScoreQueriesOfRun<kBits, 3>(rows, units, queries + q, state.count, first, scores);
  }
  for (; q < state.count; ++q) {
    float* scores = state.scores + q * kScoreStride;
    ScoreQueriesOfRun<kBits, 1>(rows, units, queries + q, state.count, first, scores);
  }
}

// What the queries of a head need.
struct QueryRoom {
  int64_t records = 0;  // RunQueries of a query
  int64_t units = 0;    // of its factors, all digits
  int64_t most = 0;     // of a run's numbers
};
inline QueryRoom RoomFor(const CodeRuns& runs) {
  QueryRoom room;
  for (const CodeRun& run : runs.runs()) {
    room.records += QueryDigits(run.bits);
    room.units += QueryDigits(run.bits) * Units(run);
    room.most = std::max(room.most, Units(run));
  }
  return room;
}

// Floats of scratch for the queries of a head: factors, what they are made of, and RunQueries.
inline int64_t QueryFloats(const CodeRuns& runs, int64_t queries) {
  constexpr int64_t kFloats = sizeof(RunQueries) / sizeof(float);
  const QueryRoom room = RoomFor(runs);
  return queries * (room.records * kFloats + room.units * kBytes) + room.most * kBytes;
}

inline const RunQueries* QuantizeQueries(const CodeRuns& runs,
                                         const HeadState& state,
                                         float* scratch) {
  const QueryRoom room = RoomFor(runs);
  auto* factors = reinterpret_cast<int8_t*>(scratch);
  float* scaled = scratch + state.count * room.units * kBytes;
  auto* queries = reinterpret_cast<RunQueries*>(scaled + room.most * kBytes);
  RunQueries* next = queries;
  for (const CodeRun& run : runs.runs()) {
    for (int64_t q = 0; q < state.count; ++q) {
      const float* query = state.queries + q * state.stride;
      if (run.bits == 8) QuantizeQuery<8>(run, query, scaled, factors, next + q, state.count);
      if (run.bits == 4) QuantizeQuery<4>(run, query, scaled, factors, next + q, state.count);
      if (run.bits == 2) QuantizeQuery<2>(run, query, scaled, factors, next + q, state.count);
      factors += QueryDigits(run.bits) * Units(run) * 4 * kBytes;
    }
    next += QueryDigits(run.bits) * state.count;
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
    queries += QueryDigits(run.bits) * state.count;
    first_run = false;
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES
