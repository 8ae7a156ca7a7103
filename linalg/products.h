#pragma once
// Products of float matrices, single-threaded (OpenBLAS), for use inside ParallelFor bodies: the
// parts of a larger product are the caller's, so a result does not depend on the number of threads.

#include "core/base/view.h"

namespace kvc::linalg {

// C [m, n] = alpha A [m, k] B^T [n, k] (+ C when accumulate): single-threaded OpenBLAS on views,
// for use inside ParallelFor bodies.
void GemmNT(float alpha, ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c);
// C [m, n] = A [m, k] B [k, n] (+ C when accumulate).
void GemmNN(ConstMatrixF a, ConstMatrixF b, bool accumulate, MatrixF c);

}  // namespace kvc::linalg
