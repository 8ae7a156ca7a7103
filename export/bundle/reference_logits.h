#pragma once
// The proof that a bundle computes what its source computes: logits of the source checkpoint for a
// few fixed tokens, stored in the bundle (verify.safetensors), and the bundle's own beside them.

#include <filesystem>
#include <optional>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/cache/cache_geometry.h"
#include "core/checkpoint/checkpoint.h"

namespace kvc::bundle {

inline constexpr char kReferenceFile[] = "verify.safetensors";

struct ReferenceLogits {
  std::vector<int32_t> ids;   // [T]
  std::vector<float> logits;  // [T, V]
  // [T] how far the source's own logits of a token move when the embeddings change by one unit in
  // the last place: what float32 can be trusted with there. Zeros in bundles of older versions.
  std::vector<float> rounding;
};

// Token ids of the verification: fixed for a vocabulary, spread over all of it; at most 32, fewer
// when the context is shorter.
[[nodiscard]] std::vector<int32_t> VerificationIds(const ModelConfig& config);

// Logits of the source checkpoint by the LibTorch decoder; nothing in a build without LibTorch.
[[nodiscard]] std::optional<ReferenceLogits> SourceLogits(const Checkpoint& checkpoint,
                                                          int num_threads);

// Largest difference that passes for every token [T]. f32: 1e-3, or 16 times `rounding` where that
// is more: sums in another order round in every layer, and a token that the source amplifies
// (rare, with activations of hundreds) shows it. Weights or a cache of 16 bits or fewer are also
// rounded, which moves logits by about sqrt(layers) roundings of their own size (the largest
// reference logit); the coarsest of them decides.
[[nodiscard]] std::vector<double> VerificationTolerances(DType weights,
                                                         const CacheGeometry& cache,
                                                         const ReferenceLogits& reference);

// verify.safetensors: `ids` int64 [T], `logits` float [T, V], `rounding` float [T]. Read throws
// kBadInput.
void WriteReference(const std::filesystem::path& bundle, const ReferenceLogits& reference);
[[nodiscard]] ReferenceLogits ReadReference(const std::filesystem::path& bundle);

// Loads the bundle into the runtime (which compares graph and manifest), runs the ids through a
// full cache, three quarters as a prompt and the rest token by token, and returns the largest
// absolute difference from the reference's logits for every token [T]; infinity where a logit is
// no number.
[[nodiscard]] std::vector<double> BundleErrors(const std::filesystem::path& bundle,
                                               const ReferenceLogits& reference,
                                               ThreadPool& pool);

// The token that decides: the one furthest beyond its tolerance, else the one of the largest error.
[[nodiscard]] size_t DecidingToken(const std::vector<double>& errors,
                                   const std::vector<double>& tolerances);

}  // namespace kvc::bundle
