#pragma once
// `kvc-export --method auto`: which composition of thin keys, head budgets, scores and tiers costs
// the least quality at a budget, found by trying them on text that nothing was fitted to.
//
// Every candidate checkpoint is written as a full-cache bundle once, into a folder beside the
// output that is removed at the end; its policies then walk the same windows against the first
// checkpoint's full cache (pipeline/choose/compare_run.h). Where there are more than kFinalists of
// them, all meet every third window and one needle at each depth first, and only the best of that
// meet everything: half of the time, and the table of both rounds is kept.

#include <functional>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/cache/profile_file.h"
#include "core/io/json.h"

namespace kvc::choose {

// Policies that meet all windows and needles.
inline constexpr size_t kFinalists = 8;

struct AutoOptions {
  // CHECKPOINT[,PROFILE] beside MODEL: the same model with thin keys, for example.
  std::vector<std::string> candidates;
  std::vector<std::string> policies;  // export/budget/policy_text.h; empty: DefaultPolicies
  std::vector<std::string> text;      // held back from calibration
  std::string haystack;               // hides needles; empty: none are asked
  std::string context = "1024";
  std::string decode = "128";
  int64_t samples = 6;
  int64_t needles = 2;         // for each of five depths
  double least_needles = 1.0;  // share of the reference's found needles that a choice must find
};

struct AutoCandidate {
  std::string model;
  std::string profile;  // empty: none
};

struct AutoRequest {
  AutoOptions options;
  std::vector<AutoCandidate> candidates;  // the first is the reference
  std::string budget;
  int64_t sinks = 4;
  int64_t window = 32;
  uint64_t seed = 42;
  std::string scratch;  // beside it lies a temporary folder for the candidates' bundles
  // Writes the full-cache bundle of a checkpoint, unverified.
  std::function<void(const AutoCandidate& candidate, const std::string& directory)> export_full;
};

struct AutoChoice {
  AutoCandidate candidate;
  std::string policy;  // export/budget/policy_text.h
  // pipeline/choose/compare_run.h of the last round, with "chosen": its line's name, and
  // "screened": the lines of the first round that did not get there, without the reference.
  Json table;
};

// "CHECKPOINT[,PROFILE]". Throws kUsage when the checkpoint is missing.
[[nodiscard]] AutoCandidate ParseCandidate(const std::string& text);

// What is worth trying with a profile: every scorer in it under lukv with both losses, lukv-mixed,
// headkv, and one budget for all heads, the last two with tiers where the profile has bases and
// the scorer losses; without a profile, the methods that need none. `behind_rotation`: the keys are
// thin behind their rotation, and queries cannot be turned to coming positions.
[[nodiscard]] std::vector<std::string> DefaultPolicies(const ProfileData* profile,
                                                       bool behind_rotation = false);

// The lines behind lines[0], the reference, best first: those that find at least `least_needles` of
// its needles (where none does, those that find most) by `kld_mean`, then the others by it. Ties go
// to the earlier line.
[[nodiscard]] std::vector<size_t> RankLines(const Json& lines, double least_needles);

// Throws kUsage without held-back text, and as the comparison does.
[[nodiscard]] AutoChoice ChooseComposition(const AutoRequest& request,
                                           ThreadPool& pool,
                                           Progress& progress);

}  // namespace kvc::choose
