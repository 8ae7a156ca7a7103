#pragma once
// Directions along which rows spread most.

#include "core/base/view.h"

namespace kvc::linalg {

// Eigenvectors of the axes.rows largest eigenvalues of a symmetric matrix [D, D], largest first, as
// orthonormal rows [r, D], r <= D. The matrix is destroyed. Single-threaded (OpenBLAS' LAPACK), for
// use inside ParallelFor bodies. Throws kBadShape, kNumeric for a NaN.
void PrincipalAxes(MatrixF symmetric, MatrixF axes);

}  // namespace kvc::linalg
