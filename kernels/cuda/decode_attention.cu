// S = K Q^T and O^T = V^T P: a warp takes 16 rows of a head at a time, copied to shared memory a
// few tiles ahead, and all query heads of the group as 8 columns. The blocks' shares come from
// PlanDecode.

#include <cmath>

#include "core/base/error.h"
#include "kernels/cuda/decode_attention.h"
#include "kernels/cuda/decode_latent_rows.cuh"
#include "kernels/cuda/decode_mixed_rows.cuh"
#include "kernels/cuda/decode_rows.cuh"

namespace kvc::cuda {
namespace {

constexpr int kWarps = kDecodeTileRows / kTileRows;
constexpr int kThreads = 32 * kWarps;
constexpr float kLog2E = 1.44269504F;

// What the warps of a block found for a head.
template <int kWidth>
struct WarpResults {
  float maximum[kWarps][kDecodeQueries];
  float sum[kWarps][kDecodeQueries];
  float output[kWarps][kDecodeQueries][kWidth + 4];
  bool last;  // the block is the last of the head's
};

template <class Rows, int kWidth>
struct DecodeShared {
  uint4 keys[kWarps][Rows::kStages][Rows::kKeyChunks];
  uint4 values[kWarps][Rows::kStages][Rows::kValueChunks];
  typename Rows::QueryShared queries;
  WarpResults<kWidth> results;
};

// A warp's softmax so far, in the fragments of decode_rows.cuh. Exponents are of 2.
template <int kSteps>
struct WarpState {
  float o[kSteps][4];
  float maximum[2];
  float sum[2];

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int m = 0; m < kSteps; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        o[m][i] = 0.0F;
      }
    }
    maximum[0] = maximum[1] = -INFINITY;
    sum[0] = sum[1] = 0.0F;
  }

  // Scores of a tile, of which `valid` >= 1 rows exist, become weights; what was summed before is
  // rescaled to the new maximum.
  __device__ __forceinline__ void Weigh(float (&s)[4], int valid, float scale) {
    const int g = LaneIndex() / 4;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      s[j] = g < valid ? s[j] * scale : -INFINITY;
      s[j + 2] = g + 8 < valid ? s[j + 2] * scale : -INFINITY;
      const float peak = fmaxf(maximum[j], WarpMax<28>(fmaxf(s[j], s[j + 2])));
      const float correction = Exp2(maximum[j] - peak);
      maximum[j] = peak;
      s[j] = Exp2(s[j] - peak);
      s[j + 2] = Exp2(s[j + 2] - peak);
      sum[j] = sum[j] * correction + s[j] + s[j + 2];
#pragma unroll
      for (int m = 0; m < kSteps; ++m) {
        o[m][j] *= correction;
        o[m][j + 2] *= correction;
      }
    }
  }
};

// The end of a piece's rows that are there: at or before its begin where none are.
__device__ __forceinline__ int EndOfRows(const DecodeArguments& in, const DecodePiece& piece) {
  if (piece.begin == piece.end) {
    return piece.end;  // a head without rows may have no segment
  }
  const int32_t* live = in.segments[piece.segment].live;
  return live == nullptr ? piece.end : min(piece.end, *live);
}

// Runs over the rows of a block's pieces, one warp's tiles, ahead of the products.
template <class Rows, int kWidth>
class CopiesAhead {
 public:
  __device__ __forceinline__ CopiesAhead(const DecodeArguments& in, int first, int end)
      : in_(in), piece_(first), end_(end) {}

  // Starts the copies of the next tile, if there is one, and closes a group in any case.
  __device__ __forceinline__ void Next(DecodeShared<Rows, kWidth>& shared) {
    const int warp = WarpIndex();
    while (row_ >= row_end_ && piece_ < end_) {
      const DecodePiece piece = in_.pieces[piece_++];
      row_ = piece.begin + warp * kTileRows;
      row_end_ = EndOfRows(in_, piece);
      if (row_ < row_end_) {
        segment_ = in_.segments[piece.segment];
      }
    }
    if (row_ < row_end_) {
      Rows::CopyKeys(shared.keys[warp][stage_], segment_.keys, row_, row_end_);
      Rows::CopyValues(shared.values[warp][stage_], segment_.values, row_, row_end_);
      row_ += kDecodeTileRows;
    }
    if constexpr (Rows::kStages > 1) {
      CommitCopies();
    }
    stage_ = stage_ + 1 == Rows::kStages ? 0 : stage_ + 1;
  }

 private:
  const DecodeArguments& in_;
  DecodeSegment segment_ = {};
  int piece_;
  int end_;
  int row_ = 0;
  int row_end_ = 0;
  int stage_ = 0;
};

template <class Rows, int kWidth>
__device__ __forceinline__ void StoreWarpResult(WarpResults<kWidth>& results,
                                                WarpState<Rows::kSteps>& state) {
  const int lane = LaneIndex();
  const int warp = WarpIndex();
#pragma unroll
  for (int j = 0; j < 2; ++j) {
    const int query = 2 * (lane % 4) + j;
    const float sum = WarpSum<28>(state.sum[j]);
    if (lane < 4) {
      results.maximum[warp][query] = state.maximum[j];
      results.sum[warp][query] = sum;
    }
#pragma unroll
    for (int m = 0; m < Rows::kSteps; ++m) {
      results.output[warp][query][16 * m + lane / 4] = state.o[m][j];
      results.output[warp][query][16 * m + lane / 4 + 8] = state.o[m][j + 2];
    }
  }
}

// Results that are added under their common maximum, in the order of the calls.
struct Merged {
  float maximum = -INFINITY;
  float sum = 0.0F;
  float value = 0.0F;

  __device__ __forceinline__ void Add(float other_maximum, float other_sum, float other_value) {
    const float weight = other_maximum == -INFINITY ? 0.0F : Exp2(other_maximum - maximum);
    sum += weight * other_sum;
    value += weight * other_value;
  }
  // A head without rows gives zeros.
  __device__ __forceinline__ float Result() const { return sum == 0.0F ? 0.0F : value / sum; }
};

__device__ __forceinline__ void StoreOutput(const DecodeHead& head, int query, int d, float value) {
  if (d < head.output_width) {
    head.outputs[static_cast<int64_t>(query) * head.output_stride + d] = value;
  }
}

// A thread for each output: the block's warps, into the outputs or into a partial result
// [maxima 8 | sums 8 | outputs 8 x kWidth].
template <int kWidth>
__device__ __forceinline__ void MergeWarps(const WarpResults<kWidth>& results,
                                           const DecodeHead& head,
                                           float* partial) {
  for (int i = static_cast<int>(threadIdx.x); i < head.group * kWidth; i += kThreads) {
    const int query = i / kWidth;
    const int d = i % kWidth;
    Merged merged;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      merged.maximum = fmaxf(merged.maximum, results.maximum[w][query]);
    }
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      merged.Add(results.maximum[w][query], results.sum[w][query], results.output[w][query][d]);
    }
    if (head.partials == 1) {
      StoreOutput(head, query, d, merged.Result());
      continue;
    }
    partial[2 * kDecodeQueries + i] = merged.value;
    if (d == 0) {
      partial[query] = merged.maximum;
      partial[kDecodeQueries + query] = merged.sum;
    }
  }
}

// The partial results of all blocks of a head, in the order of its rows.
template <int kWidth>
__device__ __forceinline__ void MergeBlocks(const DecodeHead& head, const float* partials) {
  constexpr int kStride = kDecodeQueries * (kWidth + 2);
  for (int i = static_cast<int>(threadIdx.x); i < head.group * kWidth; i += kThreads) {
    const int query = i / kWidth;
    Merged merged;
    for (int k = 0; k < head.partials; ++k) {
      merged.maximum = fmaxf(merged.maximum, LoadFromOthers(partials + k * kStride + query));
    }
    for (int k = 0; k < head.partials; ++k) {
      const float* part = partials + k * kStride;
      merged.Add(LoadFromOthers(part + query), LoadFromOthers(part + kDecodeQueries + query),
                 LoadFromOthers(part + 2 * kDecodeQueries + i));
    }
    StoreOutput(head, query, i % kWidth, merged.Result());
  }
}

// Ends a head: its warps' results are merged, and by its last block those of all blocks.
template <class Rows, int kWidth>
__device__ __forceinline__ void FinishHead(const DecodeArguments& in,
                                           const DecodePiece& piece,
                                           WarpState<Rows::kSteps>& state,
                                           WarpResults<kWidth>& results) {
  constexpr int kStride = kDecodeQueries * (kWidth + 2);
  const DecodeHead head = in.heads[piece.head];
  float* partials = in.partials + static_cast<int64_t>(head.first_partial) * kStride;
  SyncBlock();  // the head before has been merged
  StoreWarpResult<Rows, kWidth>(results, state);
  SyncBlock();
  MergeWarps<kWidth>(results, head, partials + piece.partial * kStride);
  if (head.partials == 1) {
    return;
  }
  SyncBlock();  // the block's partial result is complete
  if (threadIdx.x == 0) {
    Fence();
    results.last = AtomicAdd(in.arrived + piece.head, 1) == head.partials - 1;
    Fence();
  }
  SyncBlock();
  if (results.last) {
    MergeBlocks<kWidth>(head, partials);
    if (threadIdx.x == 0) {
      in.arrived[piece.head] = 0;
    }
  }
}

template <class Rows, int kWidth>
__global__ void __launch_bounds__(kThreads, Rows::kBlocks) DecodeKernel(const DecodeArguments in) {
  auto& shared = SharedMemory<DecodeShared<Rows, kWidth>>();
  const int warp = WarpIndex();
  const int end = in.first[blockIdx.x + 1];
  int p = in.first[blockIdx.x];
  const float scale = in.scale * kLog2E;
  CopiesAhead<Rows, kWidth> copies(in, p, end);
  for (int i = 0; i < Rows::kStages - 1; ++i) {
    copies.Next(shared);
  }
  int stage = 0;
  while (p < end) {
    DecodePiece piece = in.pieces[p];
    const int head = piece.head;
    typename Rows::Queries queries;
    Rows::LoadQueries(in.heads[head], shared.queries, queries);
    WarpState<Rows::kSteps> state;
    state.Clear();
    for (; p < end && in.pieces[p].head == head; ++p) {
      piece = in.pieces[p];
      const int rows_end = EndOfRows(in, piece);
      const int first = piece.begin + warp * kTileRows;
      if (first >= rows_end) {
        continue;
      }
      const DecodeSegment& segment = in.segments[piece.segment];
      Rows::Enter(in.heads[head], segment, queries, state.o);
      for (int row = first; row < rows_end; row += kDecodeTileRows) {
        if constexpr (Rows::kStages == 1) {
          SyncWarp();  // the tile before has been read
          copies.Next(shared);
        } else {
          WaitCopies<Rows::kStages - 2>();
        }
        SyncWarp();  // all lanes' copies are there, and the stage that Next fills has been read
        float s[4] = {};
        Rows::Scores({shared.keys[warp][stage], segment, row, rows_end}, queries, s);
        state.Weigh(s, rows_end - row, scale);
        Rows::Accumulate(state.o, shared.values[warp][stage], segment.values, s);
        if constexpr (Rows::kStages > 1) {
          copies.Next(shared);
        }
        stage = stage + 1 == Rows::kStages ? 0 : stage + 1;
      }
      Rows::Leave(segment, state.o);
    }
    FinishHead<Rows, kWidth>(in, piece, state, shared.results);
  }
}

template <class Rows, int kWidth>
void LaunchKernel(const DecodeArguments& in, int32_t blocks, StreamHandle stream) {
  Launch(DecodeKernel<Rows, kWidth>,
         LaunchShape("DecodeKernel", static_cast<unsigned>(blocks), kThreads,
                     sizeof(DecodeShared<Rows, kWidth>)),
         stream, in);
}

template <int kWidth>
void LaunchOfWidth(const DecodeArguments& in, const DecodeLaunch& launch, StreamHandle stream) {
  switch (launch.reader) {
    case DecodeReader::kBF16:
      return LaunchKernel<MatrixRows<__nv_bfloat16, kWidth>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kF16:
      return LaunchKernel<MatrixRows<__half, kWidth>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kF32:
      return LaunchKernel<FloatRows<kWidth>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kMixed:
      return LaunchKernel<MixedRows<kWidth, 1>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kAny:
      return LaunchKernel<MixedRows<kWidth, 2>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kLatents:
      return LaunchKernel<LatentRows<kWidth>, kWidth>(in, launch.blocks, stream);
  }
}

// Few models are so wide: rows of any format but bf16 share a reader.
void LaunchWidest(const DecodeArguments& in, const DecodeLaunch& launch, StreamHandle stream) {
  constexpr int kWidth = kMostDecodeWidth;
  switch (launch.reader) {
    case DecodeReader::kBF16:
      return LaunchKernel<MatrixRows<__nv_bfloat16, kWidth>, kWidth>(in, launch.blocks, stream);
    case DecodeReader::kLatents:
      return LaunchKernel<LatentRows<kWidth>, kWidth>(in, launch.blocks, stream);
    default:
      return LaunchKernel<MixedRows<kWidth, 2>, kWidth>(in, launch.blocks, stream);
  }
}

}  // namespace

void DecodeAttention(const DecodeArguments& in, const DecodeLaunch& launch, StreamHandle stream) {
  switch (launch.width) {
    case 64:
      return LaunchOfWidth<64>(in, launch, stream);
    case 128:
      return LaunchOfWidth<128>(in, launch, stream);
    case kMostDecodeWidth:
      return LaunchWidest(in, launch, stream);
    default:
      KVC_THROW(kInternal, "decode attention: expected the plan's width, got {}", launch.width);
  }
}

}  // namespace kvc::cuda
