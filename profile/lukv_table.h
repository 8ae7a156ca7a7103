#pragma once
// LU-KV's table of local pruning ratios [LUKV], the form in which its research code and kvpress
// read a profile: float [99, L, G]. Entry (i - 1, l, g) is the share of its tokens that kv head g
// of layer l drops when i % of all tokens of all heads are dropped.
//
// The lost-importance curves of one scorer are made convex, and their segments are dropped by
// rising slope until i % are gone. The last segment is dropped in part, so that the shares of all
// heads have exactly that mean. Sinks and window are kept and count as tokens; a head keeps at
// least those, or 1 % of its tokens. Once nothing more may be dropped, the ratios stay as they are.
// Unlike the published code, which averages the solutions of single prompts, this solves for the
// mean of their curves.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/cache/profile_file.h"

namespace kvc::profile {

inline constexpr int64_t kLuKvRatios = 99;

// Returns the table [99, L, G]; the profile must have a curve of `scorer`.
[[nodiscard]] std::vector<float> LuKvTable(const ProfileData& profile, const ScorerSpec& scorer);

// Throws kUsage, naming the option, unless the name ends in .npy or .safetensors.
void CheckLuKvTableName(const std::filesystem::path& path);
// Writes the table as .npy, or as .safetensors with one tensor "ratios". Throws kIo.
void WriteLuKvTable(const std::filesystem::path& path,
                    const ProfileData& profile,
                    const ScorerSpec& scorer);

}  // namespace kvc::profile
