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

inline int64_t QueryFloats(const CodeRuns& runs, int64_t queries) {
  int64_t bytes = 0;
  for (const CodeRun& run : runs.runs()) {
    bytes += queries * (run.end - run.begin + static_cast<int64_t>(sizeof(RunQueries)));
  }
  return (bytes + 3) / 4 + 1;
}

inline const RunQueries* QuantizeQueries(const CodeRuns& runs,
                                         const HeadState& state,
                                         float* scratch) {
  auto* queries = reinterpret_cast<RunQueries*>(scratch);
  auto* factors = reinterpret_cast<int8_t*>(queries + runs.count * state.count);
  RunQueries* next = queries;
  for (const CodeRun& run : runs.runs()) {
    const int64_t width = run.end - run.begin;
    for (int64_t q = 0; q < state.count; ++q, ++next) {
      const float* query = state.queries + q * state.stride + run.begin;
      const QueryUnit unit = UnitOf(query, run.steps, width);
      int32_t sum = 0;
      for (int64_t i = 0; i < width; ++i) {
        factors[i] = FactorOf(query[i] * run.steps[i], unit);
        sum += factors[i];
      }
      *next = {factors, unit.unit, ((1 << run.bits) - 1) * sum};
      factors += width;
    }
  }
  return queries;
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
      for (int64_t n = 0; n < runs.count; ++n) {
        const CodeRun& run = runs.all[n];
        const RunQueries& own = queries[n * state.count + q];
        int32_t sum = 0;
        for (int64_t i = 0; i < run.end - run.begin; ++i) {
          sum += own.factors[i] * CodeAt(run, RowOf(keys, first + r), i);
        }
        scores[r] += 0.5F * own.unit * static_cast<float>(2 * sum - own.offset);
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
