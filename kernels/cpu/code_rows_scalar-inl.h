// The kernels of code_part.h without vectors: the same sums, number by number.

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE::portable {

// Code i of a run, in a row.
inline int32_t CodeAt(const CodeRun& run, const uint8_t* row, int64_t i) {
  return row[run.offset + i * run.bits / 8] >> (i * run.bits % 8) & ((1 << run.bits) - 1);
}

inline const uint8_t* RowOf(const RowBlock& block, int64_t r) {
  return static_cast<const uint8_t*>(block.data) + r * block.stride;
}

// Number of RunQueries of a head.
inline int64_t NumFactors(const CodeRuns& runs, int64_t queries) {
  int64_t count = 0;
  for (const CodeRun& run : runs.runs()) count += QueryDigits(run.bits) * queries;
  return count;
}

inline int64_t QueryFloats(const CodeRuns& runs, int64_t queries) {
  int64_t bytes = NumFactors(runs, queries) * static_cast<int64_t>(sizeof(RunQueries));
  for (const CodeRun& run : runs.runs()) {
    bytes += QueryDigits(run.bits) * queries * (run.end - run.begin);
  }
  return (bytes + 3) / 4 + 1;
}

// The whole numbers of a run's query: RunQueries of its digits, `apart` from each other.
inline void QuantizeQuery(
    const CodeRun& run, const float* query, int8_t* factors, RunQueries* queries, int64_t apart) {
  const int64_t width = run.end - run.begin;
  float largest = 0.0F;
  bool finite = true;
  for (int64_t i = 0; i < width; ++i) {
    const float x = std::abs(query[i] * run.steps[i]);
    largest = std::max(largest, x);
    finite = finite && x <= std::numeric_limits<float>::max();
  }
  const QueryUnit unit = UnitOf(largest, finite, run.bits);
  const int64_t digits = QueryDigits(run.bits);
  int32_t sums[2] = {};
  for (int64_t i = 0; i < width; ++i) {
    const float n = finite ? std::nearbyint(query[i] * run.steps[i] * unit.inverse) : 0.0F;
    const float upper = digits == 2 ? std::nearbyint(n * (1.0F / kQueryBase)) : n;
    factors[i] = static_cast<int8_t>(upper);
    sums[0] += factors[i];
    if (digits == 1) continue;
    factors[width + i] = static_cast<int8_t>(n - kQueryBase * upper);
    sums[1] += factors[width + i];
  }
  const int32_t twice = (1 << run.bits) - 1;
  queries[0] = {factors, digits == 2 ? kQueryBase * unit.unit : unit.unit, twice * sums[0]};
  if (digits == 2) queries[apart] = {factors + width, unit.unit, twice * sums[1]};
}

inline const RunQueries* QuantizeQueries(const CodeRuns& runs,
                                         const HeadState& state,
                                         float* scratch) {
  auto* queries = reinterpret_cast<RunQueries*>(scratch);
  auto* factors = reinterpret_cast<int8_t*>(queries + NumFactors(runs, state.count));
  RunQueries* next = queries;
  for (const CodeRun& run : runs.runs()) {
    for (int64_t q = 0; q < state.count; ++q) {
      const float* query = state.queries + q * state.stride + run.begin;
      QuantizeQuery(run, query, factors, next + q, state.count);
      factors += QueryDigits(run.bits) * (run.end - run.begin);
    }
    next += QueryDigits(run.bits) * state.count;
  }
  return queries;
}

// What a digit of a query makes of a run of a row.
inline float ScoreOf(const CodeRun& run, const RunQueries& digit, const uint8_t* row) {
  int32_t sum = 0;
  for (int64_t i = 0; i < run.end - run.begin; ++i) sum += digit.factors[i] * CodeAt(run, row, i);
  return 0.5F * digit.unit * static_cast<float>(2 * sum - digit.offset);
}

inline void Score(const RowBlock& keys,
                  const CodeRuns& runs,
                  const RunQueries* queries,
                  int64_t first,
                  int64_t count,
                  const HeadState& state) {
  for (int64_t q = 0; q < state.count; ++q) {
    float* scores = state.scores + q * kScoreStride;
    for (int64_t r = 0; r < count; ++r) {
      scores[r] = 0.0F;
      const RunQueries* next = queries + q;
      for (const CodeRun& run : runs.runs()) {
        for (int64_t d = 0; d < QueryDigits(run.bits); ++d, next += state.count) {
          scores[r] += ScoreOf(run, *next, RowOf(keys, first + r));
        }
      }
    }
  }
}

inline int64_t DigitFloats(int64_t queries) { return queries * kTile; }

inline void Add(const RowBlock& values,
                const CodeRuns& runs,
                int64_t first,
                int64_t count,
                Slots slots,
                const HeadState& state,
                const float* shrink,
                float* scratch) {
  for (int64_t q = 0; q < state.count; ++q) {
    const float* scores = state.scores + q * kScoreStride;
    float* partial = state.partial(q);
    float* output = partial + kPartialHeader;
    for (int64_t c = 0; c < state.value_width; ++c) output[c] *= shrink[q];
    auto* weights = reinterpret_cast<int32_t*>(scratch + q * kTile);
    // A softmax that is NaN makes the output so by its sum; whole numbers cannot.
    const bool broken = std::isnan(partial[1]);
    const float largest = broken ? 0.0F : *std::max_element(scores, scores + count);
    const float unit = largest / kLargestDigits;
    float total = 0.0F;
    int32_t sum = 0;
    for (int64_t r = 0; r < count; ++r) {
      const float p = scores[slots.Of(r)];
      const float scaled = largest > 0.0F ? p * (kLargestDigits / largest) : 0.0F;
      weights[r] = static_cast<int32_t>(std::nearbyint(scaled));
      total += p;
      sum += weights[r];
    }
    partial[1] += static_cast<float>(sum) * unit - total;
    for (const CodeRun& run : runs.runs()) {
      for (int64_t i = 0; i < run.end - run.begin; ++i) {
        int32_t weighted = 0;
        for (int64_t r = 0; r < count; ++r) {
          weighted += weights[r] * CodeAt(run, RowOf(values, first + r), i);
        }
        const int32_t zero = (1 << (run.bits - 1)) * sum;
        output[run.begin + i] +=
            (static_cast<float>(weighted - zero) + 0.5F * static_cast<float>(sum)) *
            (run.steps[i] * unit);
      }
    }
  }
}

inline constexpr CodeKernels kKernels = {QueryFloats, QuantizeQueries, Score, DigitFloats, Add};

}  // namespace kvc::kernels::HWY_NAMESPACE::portable
HWY_AFTER_NAMESPACE();
