#include "linalg/svd_checks.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"

namespace kvc::linalg::detail {

void CheckGram(ConstMatrixF a, const Matrix& gram) {
  for (int64_t i = 0; i < gram.rows; ++i) {
    if (std::isfinite(gram(i, i))) continue;
    Matrix row(1, a.cols);
    std::copy_n(a.row(i), a.cols, row.data.begin());
    const auto bad = std::find_if(row.data.begin(), row.data.end(),
                                  [](double value) { return !std::isfinite(value); });
    KVC_CHECK(bad == row.data.end(), kNumeric,
              "Gram matrix of [{}, {}]: expected finite numbers, got {} at ({}, {})", a.rows,
              a.cols, *bad, i, bad - row.data.begin());
    KVC_THROW(kNumeric,
              "Gram matrix of [{}, {}]: expected rows whose squares fit a float, got larger ones "
              "in row {}",
              a.rows, a.cols, i);
  }
}

}  // namespace kvc::linalg::detail
