#pragma once
// Progress of a profile run on disk, so that an interrupted run resumes after its last whole layer.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::profile {

// Sums over windows, by name: those of the curves (profile/curve_collector.h, [L * G *
// (kCurveIntervals + 1)]) and those of the moments (profile/basis_grams.h).
using ProfileSums = std::map<std::string, std::vector<double>>;

struct ProfileState {
  int64_t next_layer = 0;
  ProfileSums sums;
  std::vector<std::vector<float>> hidden;  // inputs of next_layer, [T * E] for each window
};

// Returns the path of the state of a run in `directory`.
[[nodiscard]] std::filesystem::path StatePath(const std::filesystem::path& directory);

// Replaces the state in `directory` by rename. `signature` is what the run depends on; `hidden`
// holds the inputs of `next_layer`. Throws kIo.
void SaveState(const std::filesystem::path& directory,
               const Json& signature,
               int64_t next_layer,
               const ProfileSums& sums,
               const std::vector<std::span<const float>>& hidden);

// Returns the state in `directory`, or nothing when there is none. Throws kBadInput, naming the
// field, when it belongs to a run with another signature, and when it is broken.
[[nodiscard]] std::optional<ProfileState> LoadState(const std::filesystem::path& directory,
                                                    const Json& signature);

// Removes the state, so that the directory holds results only.
void RemoveState(const std::filesystem::path& directory);

}  // namespace kvc::profile
