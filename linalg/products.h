#pragma once
// Products of float matrices by OpenBLAS on the calling thread. They may be called from the bodies
// of ParallelFor: whoever wants a larger product in parallel cuts it into parts, so that the result
// does not depend on the number of threads.
//
// The products of linalg/product-inl.h round in another order. Scores and losses are made with
// these here, and keep their bits.

#include "core/base/view.h"

namespace kvc::linalg {

// C [m, n] = alpha A [m, k] B^T [n, k], plus C when `accumulate` is set. Rows may be strided; k may
// be 0. C must not overlap A or B. Throws kBadShape when the sizes disagree.
void GemmNT(float alpha, ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c);
// C [m, n] = A [m, k] B [k, n], plus C when `accumulate` is set; otherwise like GemmNT.
void GemmNN(ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c);

}  // namespace kvc::linalg
