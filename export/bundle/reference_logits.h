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
  // The width to which source and bundle narrow their windows, which so few tokens do not reach; 0:
  // they are as the files say, and in bundles of older versions.
  int64_t narrow_windows = 0;
};

// Token ids of the verification: fixed for a vocabulary, spread over all of it; at most 32, fewer
// when the context is shorter, or the context in which a rotation does not depend on the length.
[[nodiscard]] std::vector<int32_t> VerificationIds(const ModelConfig& config);

// Returns ReferenceLogits::narrow_windows for so many tokens: a quarter of them where a layer has a
// window that they do not fill. (That graph and manifest have the source's width is compared when a
// bundle is loaded; what a layer does with its window is what logits show.)
[[nodiscard]] int64_t NarrowedWindows(const ModelConfig& config, int64_t tokens);

// Logits of the source checkpoint by the LibTorch decoder; nothing in a build without LibTorch.
[[nodiscard]] std::optional<ReferenceLogits> SourceLogits(const Checkpoint& checkpoint,
                                                          int num_threads);

// Largest difference that passes for every token [T]: the largest of
//
//   1e-3
//   16 r_t                what float32 itself may differ by: sums in another order
//   (u / u_f32) r_t       what rounding to the bundle's formats moves
//   c max |logit|         the least for a format, for tokens that hardly move and for bundles
//                         without `rounding`
//
// r_t = `rounding` is what roundings of one float (u_f32 = 2^-24), at every place where the source
// rounds, move the logits of token t: in L layers of seven products and an attention each, whose
// errors add up as sqrt(L) does, amplified by what attention and norms of this model do. To first
// order the logits move in proportion to the size of the roundings, so a format with roundings of u
// moves them u / u_f32 times as far; weights and rows of the cache, the places where a bundle
// rounds to it, are some of those places. u is 2^-11 for f16 and 2^-8 for bf16. A row of int8 has
// steps of max |x| / 127, half of which is the rounding, and the largest of D normal elements is
// about sqrt(2 ln 2D) times as large as one of them: u = sqrt(2 ln 2D) / 254, D being the widest
// row. The coarsest of weights, keys and values decides. c is 4e-3, 3e-2 and 1e-1.
[[nodiscard]] std::vector<double> VerificationTolerances(DType weights,
                                                         const CacheGeometry& cache,
                                                         const ReferenceLogits& reference);

// verify.safetensors: `ids` int64 [T], `logits` float [T, V], `rounding` float [T], and where
// windows are narrowed `narrow_windows` int64 [1]. Read throws kBadInput.
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
