#pragma once
// Progress of a profile run on disk, so that an interrupted run resumes after its last whole layer,
// with any number of ranks (core/base/ranks.h).
//
// state.safetensors has the sums and says for which layer and from how many ranks the hidden states
// are; hidden.LAYER.RANK.safetensors has those of a rank's windows. The state counts once it has
// its name: hidden states of a layer that it does not name are left over from a run that was
// killed.

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/base/ranks.h"
#include "core/io/json_fwd.h"

namespace kvc::profile {

// Sums over windows, by name: those of the curves (profile/curve_collector.h, [L * G *
// (kCurveIntervals + 1)]) and those of the moments (profile/basis_grams.h).
using ProfileSums = std::map<std::string, std::vector<double>>;

struct ProfileState {
  int64_t next_layer = 0;
  ProfileSums sums;
  int64_t num_windows = 0;                 // of all ranks
  std::vector<std::vector<float>> hidden;  // inputs of next_layer, [T * E] for each of this rank's
};

// Returns the path of the state of a run in `directory`.
[[nodiscard]] std::filesystem::path StatePath(const std::filesystem::path& directory);

// Collective: replaces the state in `directory` by rename. `signature` is what the run depends on;
// `hidden` holds the inputs of `next_layer` of this rank's windows. Throws kIo.
void SaveState(const std::filesystem::path& directory,
               const Json& signature,
               int64_t next_layer,
               const ProfileSums& sums,
               const std::vector<std::span<const float>>& hidden,
               Ranks& ranks = OneRank());

// Returns the state in `directory`, with the hidden states of this rank's windows, or nothing when
// there is none. Throws kBadInput, naming the field, when it belongs to a run with another
// signature, and when it is broken.
[[nodiscard]] std::optional<ProfileState> LoadState(const std::filesystem::path& directory,
                                                    const Json& signature,
                                                    const Ranks& ranks = OneRank());

// Removes the state, and what killed runs have left of theirs, so that the directory holds results
// only.
void RemoveState(const std::filesystem::path& directory);

}  // namespace kvc::profile
