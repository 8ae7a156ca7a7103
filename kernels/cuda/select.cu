// Radix selection: a block counts the digits of its group's scores, from the highest digit down,
// and goes on with those scores whose digits so far are the ones of the last score that is chosen.
// Then it writes the rows above that score, and as many equal ones as are left, in order.

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/score_image.cuh"
#include "kernels/cuda/select.h"

namespace kvc::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
// Rows of a thread whose scores are loaded together; a warp's are consecutive.
constexpr int kLoads = 8;
constexpr int kTile = kThreads * kLoads;
constexpr int kBins = 1 << 11;
constexpr int kBinsOfWarp = kBins / kWarps;

// A digit of an image, which a pass counts.
struct Digit {
  int shift, bits;
};

struct SelectShared {
  int bins[kBins];
  int sums[kWarps];         // of each warp's bins
  uint32_t totals[kWarps];  // of each warp's rows: above, and 2^16 times equal
  uint32_t digits;          // of the last score that is chosen, so far
  int left;                 // rows that are to be chosen among those with these digits
};

__device__ __forceinline__ int RowOfThread(int tile, int load) {
  return tile + (WarpIndex() * kLoads + load) * 32 + LaneIndex();
}
__device__ __forceinline__ void LoadImages(const Selection& in,
                                           int tile,
                                           uint32_t (&image)[kLoads]) {
#pragma unroll
  for (int i = 0; i < kLoads; ++i) {
    const int row = RowOfThread(tile, i);
    image[i] = row < in.rows ? ImageOf(in.scores[row]) : 0;
  }
}

// The sum over a warp, in all lanes.
__device__ __forceinline__ uint32_t WarpTotal(uint32_t x) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    x += ShuffleXor(x, mask);
  }
  return x;
}

// Adds a score to the bin of its digit, if the lane has one. Equal digits are common: those that
// are lane 0's are added at once.
__device__ __forceinline__ void CountDigit(bool mine, int digit, int* bins) {
  const int first = Shuffle(mine ? digit : -1, 0);
  const bool like_first = mine && digit == first;
  const int count = CountBits(Ballot(like_first));
  if (LaneIndex() == 0 && mine) {
    AtomicAdd(bins + digit, count);
  } else if (mine && !like_first) {
    AtomicAdd(bins + digit, 1);
  }
}

// Counts a digit of the scores whose digits above it are `known`.
__device__ __forceinline__ void CountDigits(const Selection& in,
                                            const Digit& digit,
                                            uint32_t known,
                                            int* bins) {
  for (int tile = 0; tile < in.rows; tile += kTile) {
    uint32_t image[kLoads];
    LoadImages(in, tile, image);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const uint32_t high = image[i] >> digit.shift;
      CountDigit(image[i] != 0 && high >> digit.bits == known,
                 static_cast<int>(high & ((1U << digit.bits) - 1)), bins);
    }
  }
}

// Finds the bin in which the last chosen score is, from the highest one down.
__device__ __forceinline__ void FindDigit(const Digit& digit, SelectShared& shared) {
  int left = shared.left;
  int warp = kWarps - 1;
  for (; shared.sums[warp] < left; --warp) {
    left -= shared.sums[warp];
  }
  int bin = (warp + 1) * kBinsOfWarp - 1;
  for (; shared.bins[bin] < left; --bin) {
    left -= shared.bins[bin];
  }
  shared.left = left;
  shared.digits = shared.digits << digit.bits | static_cast<uint32_t>(bin);
}

// Empties the bins, counts a digit, and finds the one of the last chosen score.
__device__ __forceinline__ void Pass(const Selection& in,
                                     const Digit& digit,
                                     SelectShared& shared) {
  const int thread = static_cast<int>(threadIdx.x);
  for (int bin = thread; bin < kBins; bin += kThreads) {
    shared.bins[bin] = 0;
  }
  SyncBlock();  // the bins are empty
  CountDigits(in, digit, shared.digits, shared.bins);
  SyncBlock();  // all scores have been counted
  int sum = 0;
  for (int bin = LaneIndex(); bin < kBinsOfWarp; bin += 32) {
    sum += shared.bins[WarpIndex() * kBinsOfWarp + bin];
  }
  sum = static_cast<int>(WarpTotal(static_cast<uint32_t>(sum)));
  if (LaneIndex() == 0) {
    shared.sums[WarpIndex()] = sum;
  }
  SyncBlock();  // the sums are there
  if (thread == 0) {
    FindDigit(digit, shared);
  }
  SyncBlock();  // the digit has been found
}

// Writes the rows above the last chosen score, and the first ones that have it, in order.
__device__ __forceinline__ void WriteChosen(const Selection& in, SelectShared& shared) {
  const uint32_t last = shared.digits;
  const int left = shared.left;
  const unsigned lanes_before = (1U << LaneIndex()) - 1;
  int above = 0;  // rows before this one that are above the last score
  int equal = 0;  // rows before this one that have it
  for (int tile = 0; tile < in.rows; tile += kTile) {
    uint32_t image[kLoads];
    LoadImages(in, tile, image);
    unsigned is_above[kLoads];
    unsigned is_equal[kLoads];
    uint32_t total = 0;
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      is_above[i] = Ballot(image[i] > last);
      is_equal[i] = Ballot(image[i] == last);
      total += static_cast<uint32_t>(CountBits(is_above[i])) +
               (static_cast<uint32_t>(CountBits(is_equal[i])) << 16);
    }
    if (LaneIndex() == 0) {
      shared.totals[WarpIndex()] = total;
    }
    SyncBlock();  // the totals of this tile are there
    total = shared.totals[LaneIndex()];
    SyncBlock();  // they have been read
    const uint32_t before = WarpTotal(LaneIndex() < WarpIndex() ? total : 0U);
    total = WarpTotal(total);
    int a = above + static_cast<int>(before & 0xffffU);
    int e = equal + static_cast<int>(before >> 16);
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const int row_a = a + CountBits(is_above[i] & lanes_before);
      const int row_e = e + CountBits(is_equal[i] & lanes_before);
      if (image[i] > last || (image[i] == last && row_e < left)) {
        const int at = row_a + min(row_e, left);
        const int row = RowOfThread(tile, i);
        in.chosen[at] = row;
        if (in.best != nullptr) {
          in.best[at] = in.scores[row];
        }
      }
      a += CountBits(is_above[i]);
      e += CountBits(is_equal[i]);
    }
    above += static_cast<int>(total & 0xffffU);
    equal += static_cast<int>(total >> 16);
  }
}

// A block for each selection.
__global__ void __launch_bounds__(kThreads) SelectTopKernel(const Selection* selections) {
  Selection in = selections[blockIdx.x];
  in.count = min(in.count, in.rows);
  if (in.count <= 0) {
    return;
  }
  auto& shared = SharedMemory<SelectShared>();
  if (threadIdx.x == 0) {
    shared.digits = 0;
    shared.left = in.count;
  }
  Pass(in, {21, 11}, shared);
  Pass(in, {10, 11}, shared);
  Pass(in, {0, 10}, shared);
  WriteChosen(in, shared);
}

}  // namespace

void SelectTop(const Selection* selections, int32_t count, StreamHandle stream) {
  if (count == 0) {
    return;
  }
  Launch(SelectTopKernel,
         LaunchShape("SelectTopKernel", BlocksFor(count, 1), kThreads, sizeof(SelectShared)),
         stream, selections);
}

}  // namespace kvc::cuda
