#pragma once
// Random matrices that the tests of linalg/ share.

#include <cstdint>

#include "core/base/rng.h"
#include "linalg/matrix.h"

namespace kvc::linalg {

// A matrix of standard normal numbers times `size`.
inline Matrix RandomMatrix(int64_t rows, int64_t cols, uint64_t seed, double size = 1.0) {
  Rng rng(seed);
  Matrix a(rows, cols);
  for (double& value : a.data) value = size * rng.NextNormal();
  return a;
}

}  // namespace kvc::linalg
