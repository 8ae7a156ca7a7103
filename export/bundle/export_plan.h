#pragma once
// What kvc-export settles before a byte is written: the budget of every cache group, and the
// manifest that will say so.

#include <optional>
#include <string>

#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/json_fwd.h"
#include "export/budget/budget_plan.h"

namespace kvc::bundle {

struct ExportOptions {
  std::string model;
  std::string output;
  std::string budget = "100%";
  std::string profile;
  std::string method;  // empty: full at 100 %, lukv with a profile, else uniform
  std::string scorer = "snapkv";
  std::string loss = "importance";
  std::string tiers;  // empty: DefaultTiers
  std::string basis = "offline";
  std::string dtype = "f32";
  std::string reference_length;  // empty: the profile's context, or 4096
  int64_t sinks = 4;
  int64_t window = 32;
  // What --method auto chose, in one text (export/budget/policy_text.h): method, scorer, loss,
  // tiers and basis above then stay as they are.
  std::string policy;
  bool no_verify = false;
  bool force = false;
  int threads = 1;
  uint64_t seed = 42;  // recorded
};

struct ExportPlan {
  Checkpoint checkpoint;
  DType dtype = DType::kF32;
  Budget budget = {};
  std::optional<ProfileData> profile = {};
  std::string profile_sha256 = {};
  budget::BudgetPlan cache = {};
};

// Throws as MakeBudgetPlan does, and kBadInput for a profile of another model.
[[nodiscard]] ExportPlan MakePlan(const ExportOptions& options);
// Everything but the hashes of files and the verification.
[[nodiscard]] Manifest MakeManifest(const ExportPlan& plan, const ExportOptions& options);
// The command's JSON keys (CLI.md).
[[nodiscard]] Json PlanToJson(const ExportPlan& plan);

}  // namespace kvc::bundle
