#pragma once
// `kvc-export --method auto`: which composition of thin keys, head budgets, scores and tiers costs
// the least quality at a budget, found by trying them on text that nothing was fitted to.
//
// Every candidate checkpoint is written as a full-cache bundle once, into a folder beside the
// output that is removed at the end; all policies then walk the same windows against the first
// checkpoint's full cache (tools/compare_run.h).

#include <functional>
#include <string>
#include <vector>

#include "core/json.h"
#include "core/profile_file.h"
#include "core/progress.h"
#include "core/thread_pool.h"

namespace kvc::tools {

struct AutoOptions {
  // CHECKPOINT[,PROFILE] beside MODEL: the same model with thin keys, for example.
  std::vector<std::string> candidates;
  std::vector<std::string> policies;  // tools/policy_text.h; empty: DefaultPolicies
  std::vector<std::string> text;      // held back from calibration
  std::string haystack;               // hides needles; empty: none are asked
  std::string context = "1024";
  std::string decode = "128";
  int64_t samples = 6;
  int64_t needles = 2;         // for each of five depths
  double least_needles = 0.9;  // share of the reference's found needles that a choice must find
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
  std::string policy;  // tools/policy_text.h
  Json table;          // tools/compare_run.h, with "chosen": its line's name
};

// "CHECKPOINT[,PROFILE]". Throws kUsage when the checkpoint is missing.
[[nodiscard]] AutoCandidate ParseCandidate(const std::string& text);

// What is worth trying with a profile: every scorer in it under lukv with both losses, lukv-mixed,
// headkv, and one budget for all heads; without one, the methods that need none.
[[nodiscard]] std::vector<std::string> DefaultPolicies(const ProfileData* profile);

// The line of least `kld_mean` behind lines[0], the reference, among those that find at least
// `least_needles` of its needles; where none does, or none were asked for, among those that find
// most. Ties go to the earlier line.
[[nodiscard]] size_t ChooseLine(const Json& lines, double least_needles);

// Throws kUsage without held-back text, and as the comparison does.
[[nodiscard]] AutoChoice ChooseComposition(const AutoRequest& request,
                                           ThreadPool& pool,
                                           Progress& progress);

}  // namespace kvc::tools
