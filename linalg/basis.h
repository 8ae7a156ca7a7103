#pragma once
// Coordinates of rows in a basis that is cut to its first columns. A layer with narrow tiers stores
// its keys and values in such coordinates (core/cache/cache_bases.h).

#include "core/base/view.h"

namespace kvc::linalg {

// A basis of rows of width D: x' = (x - mean) forward and x = mean + x' back^T. Borrows.
struct BasisView {
  ConstMatrixF forward;         // [D, D]
  ConstMatrixF back;            // [D, D]
  const float* mean = nullptr;  // [D]; null: zero
};

// The functions below are single-threaded and throw kBadShape when sizes disagree. x is [T, D]; y
// is [T, r] and holds the first r <= D coordinates. x and y must not overlap.

// y = (x - mean) forward[:, :r]. After the first call of a thread, a single row allocates nothing.
void ToCoordinates(ConstMatrixF x, const BasisView& basis, MatrixF y);
// x = mean + y back[:, :r]^T
void FromCoordinates(ConstMatrixF y, const BasisView& basis, MatrixF x);
// Writes what the first `width` coordinates of the rows x leave of them to approximation [T, D],
// which must not overlap x.
void ApproximateRows(ConstMatrixF x, const BasisView& basis, int64_t width, MatrixF approximation);

}  // namespace kvc::linalg
