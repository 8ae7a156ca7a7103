// A block for each row of logits. Tokens are never sorted: a rank or a mass is found by radix
// descent, eight passes over the row that narrow down the 32 bits of a logit, most probable first.
// Every sum is of a thread's own tokens first, then over threads in their order.

#include <cmath>

#include "core/base/error.h"
#include "kernels/cuda/best_token.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling.h"

namespace kvc::cuda {
namespace {

constexpr int kThreads = kSampleThreads;
constexpr int kDigitBits = 4;
constexpr int kDigits = 1 << kDigitBits;
constexpr int kParts = kThreads / kDigits;  // threads that sum a digit

struct SampleArguments {
  const float* logits;  // [rows, count]
  int64_t stride;
  int count;
  double temperature;
  int top_k;              // 1 to count
  double top_p;           // at most 1
  const double* uniform;  // [rows]
  int32_t* ids;           // [rows]
};

__global__ void __launch_bounds__(kThreads)
    ArgMaxKernel(const float* logits, int64_t stride, int count, int32_t* ids) {
  auto& shared = SharedMemory<BestShared>();
  const Best best = FindBest(logits + blockIdx.x * stride, count, shared);
  if (threadIdx.x == 0) {
    ids[blockIdx.x] = best.nan ? kNanToken : best.id;
  }
}

// Where a descent ends: at the tokens of one logit, of which there are `equal`. Without padding,
// which nobody would write.
struct Cut {
  uint32_t rank = 0;  // of the logit, as RankOf gives it
  int equal = 0;
  int64_t before = 0;  // more probable tokens
  double mass_before = 0.0;
  double weight = 0.0;  // of each of the equal ones
};

struct SampleShared {
  BestShared best;
  int count[kDigits][kThreads];
  double mass[kDigits][kThreads];
  int count_part[kDigits][kParts];
  double mass_part[kDigits][kParts];
  int chosen;  // digit, thread or token
  Cut cut;
  double rest;
};

// Bits in whose order tokens become less probable. Zeros of both signs are equal.
__device__ __forceinline__ uint32_t RankOf(float logit) {
  const float value = logit + 0.0F;
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return (bits & 0x80000000U) != 0 ? bits : ~(bits | 0x80000000U);
}

struct Row {
  const float* logits;
  int count;
  double largest;
  double temperature;

  // Not normalised: the largest weight is 1.
  __device__ __forceinline__ double WeightOf(float logit) const {
    return exp((static_cast<double>(logit) - largest) / temperature);
  }
};

// What a descent looks for among the tokens in their order.
enum class Goal {
  kCount,     // the token with which there are `count`
  kMass,      // the first one with which there is at least `mass`
  kMoreMass,  // the first one with which there is more than `mass`
};
struct Aim {
  Goal goal;
  int count;
  double mass;

  __device__ __forceinline__ bool ReachedBy(int64_t tokens, double sum) const {
    switch (goal) {
      case Goal::kCount:
        return tokens >= count;
      case Goal::kMass:
        return sum >= mass;
      case Goal::kMoreMass:
        return sum > mass;
    }
    return false;
  }
};

// Counts and masses of the next digit of the tokens whose digits above `shift` are those of
// `prefix`, each thread's own.
__device__ __forceinline__ void CountDigits(
    const Row& row, uint32_t prefix, int shift, uint32_t last_rank, SampleShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int d = 0; d < kDigits; ++d) {
    shared.count[d][thread] = 0;
    shared.mass[d][thread] = 0.0;
  }
  const int above = shift + kDigitBits;
  for (int i = thread; i < row.count; i += kThreads) {
    const uint32_t rank = RankOf(row.logits[i]);
    const bool in_prefix = above == 32 || rank >> above == prefix >> above;
    if (in_prefix && rank <= last_rank) {
      const int digit = static_cast<int>(rank >> shift & (kDigits - 1));
      ++shared.count[digit][thread];
      shared.mass[digit][thread] += row.WeightOf(row.logits[i]);
    }
  }
  SyncBlock();  // every thread has counted
  const int digit = thread / kParts;
  const int part = thread % kParts;
  int count = 0;
  double mass = 0.0;
  for (int i = 0; i < kThreads / kParts; ++i) {
    count += shared.count[digit][i * kParts + part];
    mass += shared.mass[digit][i * kParts + part];
  }
  shared.count_part[digit][part] = count;
  shared.mass_part[digit][part] = mass;
  SyncBlock();  // every part is summed
}

// By one thread: the digit in which the aim is reached; what comes before goes to the cut. Where
// rounding has left too little mass, the last digit that has any.
__device__ __forceinline__ void ChooseDigit(const Aim& aim, int shift, SampleShared& shared) {
  Cut cut = shared.cut;
  Cut chosen = cut;
  uint32_t digit = 0;
  for (int d = 0; d < kDigits; ++d) {
    int count = 0;
    double mass = 0.0;
    for (int part = 0; part < kParts; ++part) {
      count += shared.count_part[d][part];
      mass += shared.mass_part[d][part];
    }
    if (count == 0 || (aim.goal == Goal::kMoreMass && mass == 0.0)) {
      continue;
    }
    digit = static_cast<uint32_t>(d);
    chosen = cut;
    chosen.equal = count;
    cut.before += count;
    cut.mass_before += mass;
    if (aim.ReachedBy(cut.before, cut.mass_before)) {
      break;
    }
  }
  chosen.rank |= digit << shift;
  shared.cut = chosen;
}

// Finds the logit at which the aim is reached among the tokens up to `last_rank`.
__device__ __forceinline__ Cut Descend(const Row& row,
                                       const Aim& aim,
                                       uint32_t last_rank,
                                       SampleShared& shared) {
  SyncBlock();  // the cut before has been read
  if (threadIdx.x == 0) {
    shared.cut = Cut();
  }
  for (int shift = 32 - kDigitBits; shift >= 0; shift -= kDigitBits) {
    SyncBlock();  // the digit before is chosen
    CountDigits(row, shared.cut.rank, shift, last_rank, shared);
    if (threadIdx.x == 0) {
      ChooseDigit(aim, shift, shared);
    }
  }
  SyncBlock();  // the last digit is chosen
  Cut cut = shared.cut;
  const uint32_t bits = (cut.rank & 0x80000000U) != 0 ? cut.rank : ~cut.rank & 0x7fffffffU;
  float logit;
  memcpy(&logit, &bits, sizeof(logit));
  cut.weight = row.WeightOf(logit);
  return cut;
}

// A thread's tokens, in the order of ids.
struct Share {
  int begin;
  int end;

  __device__ __forceinline__ explicit Share(int count) {
    const int each = (count + kThreads - 1) / kThreads;
    begin = min(static_cast<int>(threadIdx.x) * each, count);
    end = min(begin + each, count);
  }
};

// The id of token `number`, counted from 0, of those with this rank, in the order of ids.
__device__ __forceinline__ int NthEqual(const Row& row,
                                        uint32_t rank,
                                        int number,
                                        SampleShared& shared) {
  const Share share(row.count);
  int own = 0;
  for (int i = share.begin; i < share.end; ++i) {
    own += RankOf(row.logits[i]) == rank ? 1 : 0;
  }
  shared.count[0][threadIdx.x] = own;
  SyncBlock();  // every thread's number is there
  int before = 0;
  for (int t = 0; t < static_cast<int>(threadIdx.x); ++t) {
    before += shared.count[0][t];
  }
  if (before <= number && number < before + own) {
    for (int i = share.begin; i < share.end; ++i) {
      if (RankOf(row.logits[i]) == rank && before++ == number) {
        shared.chosen = i;
      }
    }
  }
  SyncBlock();  // the token is chosen
  return shared.chosen;
}

// How many tokens of weight `weight` it takes to get from `from` to at least `to`: 1 to `most`.
__device__ __forceinline__ int TokensFor(double from, double to, double weight, int most) {
  const double tokens = weight > 0.0 ? ceil((to - from) / weight) : static_cast<double>(most);
  return tokens >= static_cast<double>(most) ? most : max(1, static_cast<int>(tokens));
}

// Of the first top_k tokens by probability, the fewest with top_p of their mass; one of them.
__device__ __forceinline__ int DrawSorted(const SampleArguments& in,
                                          const Row& row,
                                          double uniform,
                                          SampleShared& shared) {
  Cut cut = Descend(row, {Goal::kCount, in.top_k, 0.0}, 0xffffffffU, shared);
  int equal = in.top_k - static_cast<int>(cut.before);  // of the cut's logit, those that stay
  double mass = cut.mass_before + equal * cut.weight;
  if (in.top_p < 1.0) {
    const double wanted = in.top_p * mass;
    const Cut kept = Descend(row, {Goal::kMass, 0, wanted}, cut.rank, shared);
    const int most = kept.rank == cut.rank ? equal : kept.equal;
    equal = TokensFor(kept.mass_before, wanted, kept.weight, most);
    cut = kept;
    mass = cut.mass_before + equal * cut.weight;
  }
  const double target = uniform * mass;
  const Cut drawn = Descend(row, {Goal::kMoreMass, 0, target}, cut.rank, shared);
  const int last = (drawn.rank == cut.rank ? equal : drawn.equal) - 1;
  const double number = floor((target - drawn.mass_before) / drawn.weight);
  const int chosen = number >= static_cast<double>(last) ? last : max(0, static_cast<int>(number));
  return NthEqual(row, drawn.rank, chosen, shared);
}

// By one thread: the thread in whose share the target lies, and how far into it. Where rounding has
// left too little mass, the last one that has any.
__device__ __forceinline__ void ChooseThread(double target, SampleShared& shared) {
  double before = 0.0;
  for (int t = 0; t < kThreads; ++t) {
    const double mass = shared.mass[0][t];
    if (mass > 0.0) {
      shared.chosen = t;
      shared.rest = target - before;
    }
    before += mass;
    if (before > target) {
      return;
    }
  }
}

// One of all tokens, laid out by their ids.
__device__ __forceinline__ int DrawUnsorted(const Row& row, double uniform, SampleShared& shared) {
  const Share share(row.count);
  double own = 0.0;
  for (int i = share.begin; i < share.end; ++i) {
    own += row.WeightOf(row.logits[i]);
  }
  shared.mass[0][threadIdx.x] = own;
  SyncBlock();  // every thread's mass is there
  if (threadIdx.x == 0) {
    double total = 0.0;
    for (int t = 0; t < kThreads; ++t) {
      total += shared.mass[0][t];
    }
    ChooseThread(uniform * total, shared);
  }
  SyncBlock();  // the thread is chosen
  const bool mine = shared.chosen == static_cast<int>(threadIdx.x);
  double rest = shared.rest;
  SyncBlock();  // all know the thread
  if (mine) {
    for (int i = share.begin; i < share.end; ++i) {
      const double weight = row.WeightOf(row.logits[i]);
      if (weight > 0.0) {
        shared.chosen = i;
      }
      rest -= weight;
      if (rest < 0.0) {
        break;
      }
    }
  }
  SyncBlock();  // the token is chosen
  return shared.chosen;
}

__global__ void __launch_bounds__(kThreads) SampleKernel(const SampleArguments in) {
  auto& shared = SharedMemory<SampleShared>();
  const float* logits = in.logits + blockIdx.x * in.stride;
  const Best best = FindBest(logits, in.count, shared.best);
  int id = best.id;
  if (best.nan) {
    id = kNanToken;
  } else if (fabsf(best.logit) < INFINITY) {
    const Row row = {logits, in.count, static_cast<double>(best.logit), in.temperature};
    const double uniform = in.uniform[blockIdx.x];
    const bool sorted = in.top_k < in.count || in.top_p < 1.0;
    id = sorted ? DrawSorted(in, row, uniform, shared) : DrawUnsorted(row, uniform, shared);
  }
  if (threadIdx.x == 0) {
    in.ids[blockIdx.x] = id;
  }
}

void CheckLogits(const ConstRows& logits) {
  KVC_CHECK(logits.dtype == DType::kF32, kUnsupported, "sampling: expected logits in F32, got {}",
            SafetensorsName(logits.dtype));
  KVC_CHECK(logits.width >= 1 && logits.width < (int64_t{1} << 31), kBadShape,
            "sampling: expected at least one logit, got {}", logits.width);
}

LaunchShape ShapeFor(const char* name, int64_t rows, size_t shared_bytes) {
  return {name, static_cast<unsigned>(rows), kThreads, shared_bytes};
}

}  // namespace

void ArgMax(const ConstRows& logits, int32_t* ids, StreamHandle stream) {
  CheckLogits(logits);
  if (logits.rows == 0) {
    return;
  }
  Launch(ArgMaxKernel, ShapeFor("ArgMaxKernel", logits.rows, sizeof(BestShared)), stream,
         static_cast<const float*>(logits.data), logits.stride, static_cast<int>(logits.width),
         ids);
}

void Sample(const ConstRows& logits,
            const SampleSettings& settings,
            const double* uniform,
            int32_t* ids,
            StreamHandle stream) {
  if (settings.temperature <= 0.0) {
    return ArgMax(logits, ids, stream);
  }
  CheckLogits(logits);
  KVC_CHECK(uniform != nullptr, kBadShape,
            "sampling: expected a random number for each row, got none");
  if (logits.rows == 0) {
    return;
  }
  const bool all = settings.top_k <= 0 || settings.top_k > logits.width;
  const SampleArguments in = {static_cast<const float*>(logits.data),
                              logits.stride,
                              static_cast<int>(logits.width),
                              settings.temperature,
                              static_cast<int>(all ? logits.width : settings.top_k),
                              settings.top_p < 1.0 ? settings.top_p : 1.0,
                              uniform,
                              ids};
  Launch(SampleKernel, ShapeFor("SampleKernel", logits.rows, sizeof(SampleShared)), stream, in);
}

}  // namespace kvc::cuda
