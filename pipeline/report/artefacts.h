#pragma once
// What stages have made beside their results, as a report shows it: budgets and predicted bytes of
// bundles, utility curves of profiles.

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace kvc::report {

// A bundle's manifest.
struct BundleSummary {
  std::string name;                         // its folder
  std::string method, budget, unit;         // unit: of the values, "share" or "rows"
  std::vector<std::vector<double>> values;  // [L][G]; empty where all heads keep everything
  // Bytes of a sequence behind its prefill, predicted by kvc-export for several lengths.
  struct Length {
    int64_t tokens = 0, full = 0, allocated = 0;
  };
  std::vector<Length> lengths;
};
// Returns the bundles DIR/*/manifest.json, by name. Throws kBadInput for a broken file, kIo.
[[nodiscard]] std::vector<BundleSummary> ReadBundles(const std::filesystem::path& directory);

// The utility curves of a profile: the importance lost, as a share of what the head's tokens hold
// together, when only the best tokens are kept. Point i keeps the share i / (points - 1).
struct ProfileSummary {
  std::string name;  // its folder
  struct Curve {
    std::string scorer;
    std::vector<double> low, middle, high;  // over the heads: the 10th, 50th, 90th percentile
  };
  std::vector<Curve> curves;
};
// Returns the profiles DIR/*/profile.safetensors, by name. Throws kBadInput for a broken file or
// for curves that are not [L, G, points] of F32, kIo.
[[nodiscard]] std::vector<ProfileSummary> ReadProfiles(const std::filesystem::path& directory);

}  // namespace kvc::report
