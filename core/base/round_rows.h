#pragma once
// The rounding of rows to a format: what a cache that holds them in it gives back.

#include "core/base/row_format.h"
#include "core/base/view.h"

namespace kvc {

// Encodes rows [n, width] in a format and decodes them again in place. Throws like EncodeRows
// (core/base/row_format.h).
void RoundRows(MatrixF rows, const RowFormat& format, const CodeSteps& steps = {});

}  // namespace kvc
