#pragma once
// Products of rows on one thread, for scores and losses: both sides are rows of floats that are
// found anew for each prompt, so nothing is packed before.

#include "core/base/view.h"
#include "kernels/rounding.h"

namespace kvc::kernels {

// y [m, n] = x [m, k] w [n, k]^T. With kToBF16 x and w are rounded to bf16 where the processor
// multiplies such numbers faster (kernels/cpu/block_product.h); sums stay floats. The result does
// not depend on what else runs. Rows may be strided; k may be 0. y must not overlap x or w. Throws
// kBadShape when the sizes disagree.
void MultiplyRows(ConstMatrixF x, ConstMatrixF w, InputRounding rounding, MatrixF y);

// Rounds x to what MultiplyRows makes of it, in place, so that other sums can use the same numbers.
void RoundRows(InputRounding rounding, MatrixF x);

}  // namespace kvc::kernels
