#pragma once
// The best basis of a latent that several kv heads share when every head weighs tokens and
// directions differently. There is no closed form; alternating least squares starts from one.

#include <cstdint>
#include <span>
#include <vector>

#include "factorize/key_basis.h"
#include "linalg/matrix.h"
#include "linalg/svd.h"

namespace kvc::factorize {

// Weights of an error in one head's part of the group's key k [m].
struct HeadErrorWeights {
  int64_t begin = 0;      // first of the head's D rows in the group
  linalg::Matrix metric;  // M_h [D, D]: what an error's directions weigh
  linalg::Matrix gram;  // C_h [m, m]: second moment of k over the tokens, weighted as the head does
};

// Returns
//   loss(B, A) = sum over h of tr(M_h X_h C_h X_h^T),  X_h = rows of h of (I - B A),
// with B = rebuild [m, r] and A = reduce [r, m].
[[nodiscard]] double JointLoss(std::span<const HeadErrorWeights> heads,
                               const linalg::Matrix& rebuild,
                               const linalg::Matrix& reduce);

// Returns the best basis for the sum over all heads: the heads' metrics side by side, their grams
// added (each weighted by the trace of its metric). It is exact for one head, and nested.
[[nodiscard]] KeyBasis SummedBasis(std::span<const HeadErrorWeights> heads, const linalg::Svd& svd);

// Improves the first `rank` coordinates of `start` (nested, of the whole width). The rows of B of
// one head are a regression on A,  B_h = S_h C_h A^T (A C_h A^T)^-1  with S_h the head's rows of I;
// A is the solution of  sum B_h^T M_h B_h A C_h = sum B_h^T M_h S_h C_h,  by conjugate gradients.
// Neither step raises the loss. The result has exactly `rank` coordinates, uncorrelated in the
// summed gram, largest first, orthonormal in the metrics. It is not nested; its `spectrum` is that
// of `start`.
[[nodiscard]] KeyBasis RefineBasis(std::span<const HeadErrorWeights> heads,
                                   const KeyBasis& start,
                                   int64_t rank,
                                   const linalg::Svd& svd);

}  // namespace kvc::factorize
