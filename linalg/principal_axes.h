#pragma once
// Principal axes: the directions in which rows spread most.

#include "core/base/view.h"

namespace kvc::linalg {

// Writes the eigenvectors of the r = axes.rows <= D largest eigenvalues of a symmetric matrix [D,
// D] to axes [r, D], largest first, as orthonormal rows. Both matrices must be dense; `symmetric`
// is destroyed. Single-threaded (OpenBLAS' LAPACK), so that bodies of ParallelFor may call it.
// Throws kBadShape, and kNumeric for a NaN or an infinity or without convergence.
void PrincipalAxes(MatrixF symmetric, MatrixF axes);

}  // namespace kvc::linalg
