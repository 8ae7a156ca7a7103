#pragma once
// Householder reflections: orthogonal coordinates of rows whose first ones are principal axes.
//
// H_i = I - u_i^T u_i with |u_i|^2 = 2 for the rows u_i of reflectors [n, D]. All functions are
// single-threaded and throw kBadShape when sizes disagree.

#include "core/base/view.h"

namespace kvc::linalg {

// y = (x H_1 .. H_n)[:, :r] for rows x [T, D]: y [T, r], r <= D. Row t of y may be that of x.
void ToReflected(ConstMatrixF x, ConstMatrixF reflectors, MatrixF y);
// x = [y 0] H_n .. H_1, the rows whose first r coordinates are y [T, r] and whose others are 0:
// x [T, D].
void FromReflected(ConstMatrixF y, ConstMatrixF reflectors, MatrixF x);

// Finds reflectors [n, D] for which the first n columns of H_1 .. H_n are, up to sign, the
// principal axes of rows x [T, D] about the origin, n <= D.
void FindReflectors(ConstMatrixF x, MatrixF reflectors);

}  // namespace kvc::linalg
