#pragma once
// Bases of a cache (core/cache/cache_bases.h) from the measurements of kvc-profile.
//
// The bases are `output`'s: with the covariance C of a head's keys (values) and the metric M of
// what an error of them costs (profile/layer_grams.h),
//
//   M^1/2 C M^1/2 = U diag(e) U^T,   key = M^1/2 U,  query = M^-1/2 U    (factorize/key_basis.h)
//
// and value, output likewise. Errors of one size in any coordinates of a head's keys and values
// cost the same; a coordinate that is dropped costs its e; a prefix is the best tier of its size.
// The unit of a head, or of the heads that share a latent, is chosen such that the e of its keys
// and values have the mean 1, so that a narrow type can hold coordinates.

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
