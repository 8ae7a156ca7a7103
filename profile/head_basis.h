#pragma once
// The basis of one head's keys or values among a layer's (core/cache/cache_bases.h).

#include <cstdint>
#include <vector>

#include "linalg/basis.h"

namespace kvc::profile {

// Returns the basis of head g of matrices [G, D, D] with means [G, D], D = `width`. Borrows.
inline linalg::BasisView HeadBasis(const std::vector<float>& forward,
                                   const std::vector<float>& back,
                                   const std::vector<float>& mean,
                                   int64_t g,
                                   int64_t width) {
  const int64_t at = g * width * width;
  return {{forward.data() + at, width, width},
          {back.data() + at, width, width},
          mean.data() + g * width};
}

}  // namespace kvc::profile
