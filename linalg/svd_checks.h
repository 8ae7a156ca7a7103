#pragma once
// Checks that the backends of linalg/svd.h share. Nothing else includes this header.

#include "core/base/view.h"
#include "linalg/matrix.h"

namespace kvc::linalg::detail {

// Throws kNumeric when `block` holds a NaN or an infinity, naming the first, or numbers whose
// squares do not fit a float: either leaves something that is not finite on the diagonal of its
// Gram matrix.
void CheckGram(ConstMatrixF block, const Matrix& gram);

}  // namespace kvc::linalg::detail
