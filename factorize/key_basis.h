#pragma once
// The closed forms of thin keys: for one group of heads, a pair of nested bases whose first r
// columns are the best rank-r keys under an objective. Everything is a small symmetric problem of
// the group's key width m; the model width never enters.
//
// Notation (docs/notation.md): keys of the group are rows k [m]; the truncated key is
//   k^ = k reduce_r^T rebuild_r^T,    c = k reduce_r^T [r] is what the cache holds.

#include <cstdint>
#include <span>
#include <vector>

#include "linalg/matrix.h"
#include "linalg/svd.h"

namespace kvc::factorize {

struct KeyBasis {
  linalg::Matrix reduce;         // [m, m]; row i gives coordinate i of the cached key
  linalg::Matrix rebuild;        // [m, m]; column i is coordinate i's direction in key space
  std::vector<double> spectrum;  // [m] energy of each coordinate under the objective, descending
};

// Returns vectors diag(values) vectors^T, with `values` replacing the eigenvalues of a symmetric
// matrix.
[[nodiscard]] linalg::Matrix Recompose(const linalg::EigenResult& eigen,
                                       std::span<const double> values);

// Solves min over rank-r k^ of E | (k - k^) diag(scale) |^2 with E k^T k = gram [m, m]; scale [m] >
// 0.
//   U = eigenvectors of diag(scale) gram diag(scale);  reduce = U^T diag(scale),
//   rebuild = diag(1/scale) U.
// With gram = W W^T and scale 1 this is the truncated SVD of the key projection W; with the Gram of
// calibration keys it is W whitened by the inputs; with scale^2 the query energy of each rotation
// pair it is PhasorKV's objective [PhasorKV]: averaging q R_delta e^T over relative positions
// leaves exactly that diagonal. Scales below 1e-6 of the largest are raised to it: a dimension that
// no query reads may hold anything, but must not divide by zero.
[[nodiscard]] KeyBasis ScaledBasis(const linalg::Matrix& gram,
                                   std::span<const double> scale,
                                   const linalg::Svd& svd);

// Returns the basis with scale 1 for a gram whose eigenvectors are already known.
[[nodiscard]] KeyBasis BasisOf(const linalg::EigenResult& eigen);

// Returns the basis of KQ-SVD [KQSVD]: min E | (k - mu) q^T - k' q'^T |^2 with k' = (k - mu) A, q'
// = q B.
//   C_K^1/2 C_Q^1/2 = U S V^T;  A = C_K^-1/2 U_r (reduce^T), B = C_K^1/2 U_r (rebuild).
// key_gram C_K [m, m] is the covariance of keys, query_gram C_Q [m, m] the sum of the group's query
// second moments. Directions of C_K below 1e-12 of its trace are left out of the inverse root: keys
// never move there.
[[nodiscard]] KeyBasis LogitBasis(const linalg::Matrix& key_gram,
                                  const linalg::Matrix& query_gram,
                                  const linalg::Svd& svd);

// Returns the basis of LogitBasis with coordinates of equal weight on both sides: reduce is
// multiplied and rebuild divided by the square roots of the singular values, so that a coordinate's
// variance is the same in keys and queries and falls from one coordinate to the next. 1e-3 of the
// mean eigenvalue of `key_gram` is added to its diagonal, so that full rank is exact for keys that
// calibration never saw, and nothing is magnified in directions where keys hardly moved in
// calibration. (Measured on SmolLM2 at 25 %, against 1e-7: the KL divergence stays the same, and
// the effect of rounding on the logits of random tokens falls to less than half.)
[[nodiscard]] KeyBasis BalancedLogitBasis(const linalg::Matrix& key_gram,
                                          const linalg::Matrix& query_gram,
                                          const linalg::Svd& svd);

// Returns the basis of least E (k - k^) metric (k - k^)^T for keys (or values) of covariance gram
// [m, m]:
//   metric^1/2 gram metric^1/2 = U diag(e) U^T;  reduce = U^T metric^1/2,  rebuild = metric^-1/2 U.
// An error of one in any coordinate costs one, a coordinate that is dropped costs its e, which is
// `spectrum`, and the coordinates are uncorrelated. `ridge` of the metric's mean eigenvalue is
// added to its diagonal, which keeps the pair's condition number below sqrt(m / ridge). The metric
// is symmetric and not zero.
[[nodiscard]] KeyBasis MetricBasis(const linalg::Matrix& gram,
                                   const linalg::Matrix& metric,
                                   double ridge,
                                   const linalg::Svd& svd);

// A basis of whole rotation pairs (j, j + D/2), each kept or dropped. It consists of unit vectors,
// coordinates 2i and 2i + 1 being dimensions pairs[i] and pairs[i] + D/2. Dropping the set S costs
//   E |sum_{p in S} k_p q_p^T|^2 = sum_{p, p' in S} M_pp',   M = C_K o C_Q summed over 2 x 2
//   blocks.
// The selection is greedy and nested: of the remaining pairs, the one whose loss adds least is
// dropped next.
struct PairBasis {
  std::vector<int64_t> pairs;  // [D/2], most needed first
  KeyBasis basis;              // spectrum: what dropping a pair adds, half for each dimension
};
[[nodiscard]] PairBasis SelectPairs(const linalg::Matrix& key_gram,
                                    const linalg::Matrix& query_gram);

// Returns the share of the energy that rank r loses: |(I - P_r) under gram and scale| / |I ...|,
// each summed over the rows [begin, begin + count) of the group, square root taken. It is the
// head's relative logit error. P_r = rebuild_r reduce_r.
[[nodiscard]] double RelativeError(const KeyBasis& basis,
                                   int64_t rank,
                                   const linalg::Matrix& gram,
                                   std::span<const double> scale,
                                   int64_t begin,
                                   int64_t count);

// Returns the relative error for queries with a full second-moment matrix: sqrt(tr(C_Q (I-P) C_K
// (I-P)^T) / tr(C_Q C_K)).
[[nodiscard]] double RelativeLogitError(const KeyBasis& basis,
                                        int64_t rank,
                                        const linalg::Matrix& key_gram,
                                        const linalg::Matrix& query_gram);

}  // namespace kvc::factorize
