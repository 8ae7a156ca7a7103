// Sorting by digits, the lowest first: each thread counts the digits of rows that lie one behind
// another, and moves them behind those of smaller digits and earlier threads, so that equal keys
// stay in order. The result does not depend on the order of threads.

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/reserve_shares.h"
#include "kernels/cuda/score_image.cuh"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int kDigitBits = 4;
constexpr int kDigits = 1 << kDigitBits;
// A warp sums the counts of a digit, each lane those of 16 consecutive threads; a place behind
// every second lane's keeps lanes in different banks.
constexpr int kPerLane = kThreads / 32;
constexpr int kColumns = kThreads + 32;
static_assert(kThreads / 32 == kDigits, "a warp for each digit");

struct SortShared {
  int count[kDigits][kColumns];  // before and within the digit, for each thread
  int total[kDigits];
};

__device__ __forceinline__ int ColumnOf(int thread) { return thread + thread / 32; }

// Keys, and the rows that they are of; rows may be null.
struct Sorted {
  uint32_t* keys;
  uint32_t* rows;
};

// Sums the counts of the warp's digit, so that each thread's says how many are before it.
__device__ __forceinline__ void SumCounts(SortShared& shared) {
  int* counts = shared.count[WarpIndex()];
  const int first = ColumnOf(LaneIndex() * kPerLane);
  int own = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    own += counts[first + i];
  }
  int before = own;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = Shuffle(before, max(LaneIndex() - step, 0));
    before += LaneIndex() >= step ? other : 0;
  }
  if (LaneIndex() == 31) {
    shared.total[WarpIndex()] = before;
  }
  before -= own;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int count = counts[first + i];
    counts[first + i] = before;
    before += count;
  }
}

// Sorts by one digit, keys with smaller ones first.
__device__ __forceinline__ void SortDigit(
    const Sorted& from, const Sorted& to, int count, int shift, SortShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  const int column = ColumnOf(thread);
  const int each = (count + kThreads - 1) / kThreads;
  const int begin = min(count, thread * each);
  const int end = min(count, begin + each);
  for (int digit = 0; digit < kDigits; ++digit) {
    shared.count[digit][column] = 0;
  }
  for (int i = begin; i < end; ++i) {
    ++shared.count[from.keys[i] >> shift & (kDigits - 1)][column];
  }
  SyncBlock();  // all digits have been counted
  SumCounts(shared);
  SyncBlock();  // the counts have been summed
  for (int i = begin; i < end; ++i) {
    const uint32_t key = from.keys[i];
    const int digit = static_cast<int>(key >> shift & (kDigits - 1));
    int at = shared.count[digit][column]++;
    for (int smaller = 0; smaller < digit; ++smaller) {
      at += shared.total[smaller];
    }
    to.keys[at] = key;
    if (to.rows != nullptr) {
      to.rows[at] = from.rows[i];
    }
  }
  SyncBlock();  // the keys lie by this digit
}

// Sorts by all digits; the result lies where the keys began.
__device__ __forceinline__ void Sort(const Sorted& keys,
                                     const Sorted& room,
                                     int count,
                                     SortShared& shared) {
  for (int shift = 0; shift < 32; shift += 2 * kDigitBits) {
    SortDigit(keys, room, count, shift, shared);
    SortDigit(room, keys, count, shift + kDigitBits, shared);
  }
}

// A block for each reservation.
__global__ void __launch_bounds__(kThreads) ReserveSharesKernel(const ShareReserve* shares) {
  const ShareReserve in = shares[blockIdx.x];
  if (in.rows <= 0) {
    return;
  }
  auto& shared = SharedMemory<SortShared>();
  const auto part = [&](int number) { return in.scratch + static_cast<int64_t>(number) * in.rows; };
  const Sorted scores = {part(0), nullptr};
  const Sorted others = {part(2), part(3)};
  for (int row = static_cast<int>(threadIdx.x); row < in.rows; row += kThreads) {
    scores.keys[row] = ~ImageOf(in.scores[row]);
    others.keys[row] = ~ImageOf(in.other[row]);
    others.rows[row] = static_cast<uint32_t>(row);
  }
  SyncBlock();  // all keys are there
  Sort(scores, {part(1), nullptr}, in.rows, shared);
  Sort(others, {part(4), part(5)}, in.rows, shared);
  for (int p = static_cast<int>(threadIdx.x); p < in.rows; p += kThreads) {
    const double rank = static_cast<double>(p) * in.step;
    if (rank < static_cast<double>(in.rows)) {
      const float least = ScoreOf(~scores.keys[static_cast<int>(rank)]);
      float& score = in.scores[others.rows[p]];
      score = score < least ? least : score;
    }
  }
}

}  // namespace

void ReserveShares(const ShareReserve* shares, int32_t count, StreamHandle stream) {
  if (count == 0) {
    return;
  }
  Launch(ReserveSharesKernel,
         LaunchShape("ReserveSharesKernel", BlocksFor(count, 1), kThreads, sizeof(SortShared)),
         stream, shares);
}

}  // namespace kvc::cuda
