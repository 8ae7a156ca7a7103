#include "core/base/round_rows.h"

#include <cstddef>
#include <vector>

namespace kvc {

void RoundRows(MatrixF rows, const RowFormat& format, const CodeSteps& steps) {
  const int64_t stride = RowBytes(format, rows.cols, steps);
  std::vector<std::byte> stored(static_cast<size_t>(rows.rows * stride));
  EncodeRows(rows, format, stored.data(), stride, steps);
  DecodeRows(stored.data(), format, stride, rows, steps);
}

}  // namespace kvc
