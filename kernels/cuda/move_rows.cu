#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/move_rows.cuh"
#include "kernels/cuda/move_rows.h"
#include "kernels/cuda/row_codec.cuh"

namespace kvc::cuda {
namespace {

constexpr int kMoveRows = 64;  // of a block
constexpr int kMoveWarps = static_cast<int>(kElementThreads) / 32;
constexpr int kMostPlanes = 65535;  // the grid's second dimension
// Loads of a thread under way.
constexpr int kDepth = 4;
// A block closes the gaps of this many bytes of each row: a sector, so that none is shared.
constexpr int kColumnBytes = 32;

// Units of copies: 16, 4 or 2 bytes.
template <class Unit>
__device__ __forceinline__ Unit LoadUnit(const char* p) {
  return *reinterpret_cast<const Unit*>(p);
}
template <>
__device__ __forceinline__ uint4 LoadUnit<uint4>(const char* p) {
  return Load16(p);
}
template <class Unit>
__device__ __forceinline__ void StoreUnit(char* p, const Unit& x) {
  *reinterpret_cast<Unit*>(p) = x;
}
template <>
__device__ __forceinline__ void StoreUnit<uint4>(char* p, const uint4& x) {
  Store16(p, x);
}

// Bits that are set in an address, a stride or a length, of which the units must be divisors.
__device__ __forceinline__ uint64_t Alignment(const CachedRows& rows) {
  return reinterpret_cast<uintptr_t>(rows.data) | static_cast<uint64_t>(rows.stride);
}

// Rows first .. end - 1 of a move keep their bits.
template <class Unit>
__device__ __forceinline__ void CopyBits(const RowMove& move, int first, int end, int bytes) {
  const int units = bytes / static_cast<int>(sizeof(Unit));  // of a row
  const int total = (end - first) * units;
  constexpr int kThreads = static_cast<int>(kElementThreads);
  for (int begin = static_cast<int>(threadIdx.x); begin < total; begin += kDepth * kThreads) {
    Unit unit[kDepth];
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int i = begin + k * kThreads;
      if (i < total) {
        const int row = i / units;
        unit[k] = LoadUnit<Unit>(RowAt(move.from, SourceRow(move, first + row)) +
                                 (i - row * units) * sizeof(Unit));
      }
    }
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int i = begin + k * kThreads;
      if (i < total) {
        const int row = i / units;
        StoreUnit<Unit>(
            RowAt(move.to, TargetRow(move, first + row)) + (i - row * units) * sizeof(Unit),
            unit[k]);
      }
    }
  }
}

// A block for kMoveRows rows of a move.
__global__ void __launch_bounds__(kElementThreads) MoveRowsKernel(const RowMove* moves) {
  const RowMove& move = moves[blockIdx.y];
  const int first = static_cast<int>(blockIdx.x) * kMoveRows;
  if (first >= move.rows) {
    return;
  }
  const int end = min(first + kMoveRows, move.rows);
  if (!AreAlike(move.from, move.to)) {
    for (int i = first + WarpIndex(); i < end; i += kMoveWarps) {
      RecodeRow(move.from, SourceRow(move, i), move.to, TargetRow(move, i), move.faults);
    }
    return;
  }
  const RowMove own = move;  // in registers, which stores do not change
  const int bytes = RowBytesOf(own.to);
  const uint64_t bits = Alignment(own.from) | Alignment(own.to) | static_cast<uint64_t>(bytes);
  if (bits % 16 == 0) {
    CopyBits<uint4>(own, first, end, bytes);
  } else if (bits % 4 == 0) {
    CopyBits<uint32_t>(own, first, end, bytes);
  } else {
    CopyBits<uint16_t>(own, first, end, bytes);
  }
}

// Bytes begin .. end - 1 of all rows of a plane move down. Rows are loaded before their targets are
// stored; later rows have sources behind all targets so far, because kept[i] >= i.
template <class Unit>
__device__ __forceinline__ void CloseGaps(const KeptRows& in, int begin, int end) {
  constexpr int kThreads = static_cast<int>(kElementThreads);
  const int units = (end - begin) / static_cast<int>(sizeof(Unit));  // of a row
  const int64_t total = static_cast<int64_t>(in.rows) * units;
  for (int64_t start = 0; start < total; start += kDepth * kThreads) {
    Unit unit[kDepth];
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int64_t i = start + k * kThreads + threadIdx.x;
      if (i < total) {
        const int64_t row = i / units;
        const int64_t source = in.kept != nullptr ? in.kept[row] : in.first + row;
        unit[k] =
            LoadUnit<Unit>(RowAt(in.plane, source) + begin + (i - row * units) * sizeof(Unit));
      }
    }
    SyncBlock();  // the rows that are overwritten now have been loaded
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      const int64_t i = start + k * kThreads + threadIdx.x;
      if (i < total) {
        const int64_t row = i / units;
        StoreUnit<Unit>(RowAt(in.plane, row) + begin + (i - row * units) * sizeof(Unit), unit[k]);
      }
    }
  }
}

// A block for kColumnBytes of a plane.
__global__ void __launch_bounds__(kElementThreads) KeepRowsKernel(const KeptRows* planes) {
  const KeptRows in = planes[blockIdx.y];
  const int bytes = RowBytesOf(in.plane);
  const int begin = static_cast<int>(blockIdx.x) * kColumnBytes;
  if (begin >= bytes || (in.kept == nullptr && in.first == 0)) {
    return;
  }
  const int end = min(begin + kColumnBytes, bytes);
  const uint64_t bits = Alignment(in.plane) | static_cast<uint64_t>(bytes);
  if (bits % 16 == 0) {
    CloseGaps<uint4>(in, begin, end);
  } else if (bits % 4 == 0) {
    CloseGaps<uint32_t>(in, begin, end);
  } else {
    CloseGaps<uint16_t>(in, begin, end);
  }
}

LaunchShape PlaneShape(const char* name, int64_t blocks, int32_t planes) {
  KVC_CHECK(planes <= kMostPlanes, kBadShape, "{}: expected at most {} planes, got {}", name,
            kMostPlanes, planes);
  LaunchShape shape(name, BlocksFor(blocks, 1), kElementThreads);
  shape.blocks_y = static_cast<unsigned>(planes);
  return shape;
}

}  // namespace

void MoveRows(const RowMove* moves, int32_t count, int32_t most_rows, StreamHandle stream) {
  if (count == 0 || most_rows == 0) {
    return;
  }
  const int64_t blocks = (static_cast<int64_t>(most_rows) + kMoveRows - 1) / kMoveRows;
  Launch(MoveRowsKernel, PlaneShape("MoveRowsKernel", blocks, count), stream, moves);
}

void KeepRows(const KeptRows* planes, int32_t count, int64_t most_bytes, StreamHandle stream) {
  if (count == 0 || most_bytes == 0) {
    return;
  }
  const int64_t blocks = (most_bytes + kColumnBytes - 1) / kColumnBytes;
  Launch(KeepRowsKernel, PlaneShape("KeepRowsKernel", blocks, count), stream, planes);
}

}  // namespace kvc::cuda
