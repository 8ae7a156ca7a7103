#pragma once
// profile.json + profile.safetensors + bases.safetensors: what calibration found out about a
// model's heads.
// Schema: docs/formats/profile.md.

#include <cstdint>
#include <filesystem>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/cache/cache_bases.h"
#include "core/cache/cache_spec.h"
#include "core/io/json.h"

namespace kvc {

// Points at which utility curves are sampled: shares of the tokens, ascending, first 0, last 1.
// 0, 1/128, ..., 1: fine enough that interpolation errs less than the calibration's noise.
inline constexpr int64_t kCurveIntervals = 128;

struct ProfileData {
  std::string tool_version;
  std::string model_sha256;  // of the profiled checkpoint's config and weights: see ModelDigest
  int64_t num_layers = 0;    // L
  int64_t num_kv_heads = 0;  // G
  int64_t context = 0;       // tokens of a window before the horizon
  int64_t horizon = 0;
  int64_t windows = 0;
  int64_t sinks = 4;    // excluded from the curves, as always kept
  int64_t window = 32;  // likewise
  Json options;         // every option, seed, calibration file hashes

  // Oracle importance lost when only the scorer's best tokens are kept, mean over windows, for each
  // scorer: [L * G * (kCurveIntervals + 1)], index (l * G + g) * (kCurveIntervals + 1) + point.
  // Point i keeps the share i / kCurveIntervals of the evictable tokens. Non-increasing in i by
  // construction; 0 at the last point.
  std::map<ScorerSpec, std::vector<float>> curves;
  // Error of the attention's output instead (profile/output_error.h of the profiler, in units of
  // the residual stream's squared norm), for the same scorers or, in older profiles, for none.
  std::map<ScorerSpec, std::vector<float>> error_curves;
  // The same when tokens may be in `tiers` (lukv-mixed): point i spends the share i /
  // kCurveIntervals of the evictable tokens' bytes. For those scorers whose scores are losses.
  std::map<ScorerSpec, std::vector<float>> mixed_curves;
  std::vector<Tier> tiers;  // widest first, the dropped implied; none in older profiles
  // Lost importance with the oracle's own order: the best that any scorer could do.
  std::vector<float> oracle_curve;

  std::string importance_method;         // "oracle" or "needle"
  int64_t importance_tests = 0;          // windows or passed needle tests that it is from
  std::vector<float> importance;         // [L * G], sums to 1: the one of that method
  std::vector<float> oracle_importance;  // likewise; none in profiles of older versions
  std::vector<float> needle_importance;  // likewise; only where a needle question was answered
  int64_t needle_tests = 0;              // needle questions asked
  int64_t needle_passed = 0;             // and answered

  std::vector<LayerBases> bases;  // [L]; none in profiles of older versions
};

// Files that make a checkpoint what it is: config.json, the weights and their index, by name.
[[nodiscard]] std::set<std::filesystem::path> ModelFiles(const std::filesystem::path& directory);
// Digest of a checkpoint: SHA-256 over the names and hashes of its files, in name order.
[[nodiscard]] std::string ModelDigest(const std::filesystem::path& directory);
[[nodiscard]] std::string ModelDigest(const std::map<std::string, std::string>& hashes);

// Both write into / read from a directory. Read throws kBadInput naming key or tensor.
void WriteProfile(const std::filesystem::path& directory, const ProfileData& profile);
[[nodiscard]] ProfileData ReadProfile(const std::filesystem::path& directory);

}  // namespace kvc
