#pragma once
// What a profile says in a few numbers, and the JSON of kvc-profile.

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "pipeline/profile_stage.h"

namespace kvc::pipeline {

// Shares of its tokens that every head keeps, at which a profile is summarised.
struct KeptShare {
  const char* name;
  double share;
};
inline constexpr std::array<KeptShare, 3> kKeptShares = {
    {{"50%", 0.5}, {"25%", 0.25}, {"12.5%", 0.125}}};

// Oracle importance that a choice of tokens loses, by kKeptShares.
struct LossSummary {
  std::string name;                                  // of the scorer, or "oracle"
  std::array<double, kKeptShares.size()> loss = {};  // share of all importance
  // Times what the oracle's own choice loses; none where that is nothing.
  std::array<std::optional<double>, kKeptShares.size()> ratio;
};

// Returns the summary of every scorer, in the order of the options, and the oracle's last.
[[nodiscard]] std::vector<LossSummary> SummarizeLosses(const ProfileData& profile,
                                                       const profile::ProfileOptions& options);

// Returns {"windows", "tokens", "hidden_bytes", "memory_bytes"}, the keys of --dry-run.
[[nodiscard]] Json ToJson(const profile::ProfilePlan& plan);
// Returns the plan's keys, "scorers": {name: {"loss", "ratio"}}, "oracle": its loss, and
// "importance": {"method", "tests", "needle_tests", "needle_passed"}.
[[nodiscard]] Json ToJson(const ProfileResult& result, const profile::ProfileOptions& options);

}  // namespace kvc::pipeline
