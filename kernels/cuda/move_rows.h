#pragma once
// Moves of cached rows on the device: storing new rows, pushing queries to a ring, gathering rows
// into other blocks, and closing gaps in place. A table of moves names what goes where for all
// groups of a layer, and of several sequences; one launch executes it. Elements follow the rule of
// kvc::CopyRows (core/base/row_format.h), to the bit. Nothing waits for the stream.
//
// Plain C++17: kernels and the host include this.

#include <cstdint>
#include <vector>

#include "kernels/cuda/cached_rows.h"
#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// Rows of one plane that go to another: the first to.width <= from.width columns of
//
//   source row   from_rows[i], or from_first + i where there is no list
//   target row   to_first + *held + i, modulo `ring`
//
// for i = 0 .. rows - 1. Lists and `held` lie on the device. Sources may be floats as well as rows
// of a cache: columns c, c + 1, ... of x [T, W] are {x + c, RowCode::kF32, width, 4 W}.
struct RowMove {
  CachedRows from;
  CachedRows to;
  const int32_t* from_rows = nullptr;  // [rows] or null
  // Rows that the target holds when the kernel runs, so that a captured step stores one row further
  // at each replay. Null: 0.
  const int32_t* held = nullptr;
  int32_t from_first = 0;
  int32_t to_first = 0;
  int32_t rows = 0;
  int32_t ring = 0;  // rows of a target that begins again at its end, at least `rows`; 0: none
  // On the device, or null: where numbers are counted that are not finite and for which the target,
  // in codes with steps, has no code.
  int32_t* faults = nullptr;
};

// Returns the most rows of a move, which MoveRows asks for; 0 for none. Throws kBadShape, naming
// the move, for a target that is wider than its source, rows that overlap (a stride below the row's
// bytes), a ring shorter than its move, or addresses that are no multiple of the element (of 4
// bytes for kInt8).
[[nodiscard]] int32_t MostRows(const std::vector<RowMove>& moves);

// Executes moves [count] on the device, none of which has more than `most_rows` rows. No target may
// overlap a source or another target. Throws kBadShape for counts that no grid holds.
void MoveRows(const RowMove* moves, int32_t count, int32_t most_rows, StreamHandle stream);

// Rows that stay in a plane while those between them go: rows kept[0] < kept[1] < ... on the device
// become rows 0, 1, ...; without a list, rows first, first + 1, ... do.
struct KeptRows {
  CachedRows plane;
  const int32_t* kept = nullptr;  // [rows] or null
  int32_t first = 0;
  int32_t rows = 0;
};

// Closes the gaps of planes [count] on the device, in place. `most_bytes` is the most bytes of a
// row (CachedRowBytes). Throws kBadShape for counts that no grid holds.
void KeepRows(const KeptRows* planes, int32_t count, int64_t most_bytes, StreamHandle stream);

}  // namespace kvc::cuda
