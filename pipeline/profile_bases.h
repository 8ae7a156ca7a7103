#pragma once
// Bases of a cache (core/cache/cache_bases.h) from the measurements of kvc-profile.
//
// key, query: the logit-optimal pair, C_K^1/2 C_Q^1/2 = U S V^T, key = C_K^-1/2 U S^1/2,
//   query = C_K^1/2 U S^-1/2 (factorize/key_basis.h, BalancedLogitBasis) [KQSVD].
// value, output: the same form with C_V and M_V, which minimises |(v - v^) W_O^T| over the group.

#include <cstdint>

#include "core/cache/cache_bases.h"
#include "core/checkpoint/model_config.h"
#include "linalg/svd.h"
#include "profile/layer_grams.h"

namespace kvc::pipeline {

// Returns the bases of one layer. A head whose keys, queries, values or output projection are zero
// keeps the identity. Throws kNumeric when a decomposition fails.
[[nodiscard]] LayerBases MakeBases(const ModelConfig& config,
                                   int64_t layer,
                                   const profile::LayerGrams& grams,
                                   const linalg::Svd& svd);

// Returns the same bases with LAPACK's decompositions on the calling thread alone: libraries that
// split products by the number of threads would round differently for each number.
[[nodiscard]] LayerBases MakeBases(const ModelConfig& config,
                                   int64_t layer,
                                   const profile::LayerGrams& grams);

}  // namespace kvc::pipeline
