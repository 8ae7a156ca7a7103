#pragma once
// The plan of an export, settled before a byte is written: the budget of every cache group, and the
// manifest that will say so.

#include <filesystem>
#include <optional>
#include <string>

#include "core/base/dtype.h"
#include "core/base/row_format.h"
#include "core/base/sizes.h"
#include "core/cache/manifest.h"
#include "core/cache/profile_file.h"
#include "core/checkpoint/checkpoint.h"
#include "export/budget/budget_plan.h"

namespace kvc::bundle {

// Options as they were written on the command line. The manifest records them beside what they
// came to; nothing is computed from them.
struct OptionTexts {
  std::string budget = "100%";
  std::string method;
  std::string scorer = "auto";
  std::string loss = "auto";
  std::string policy;  // what --method auto chose, whatever method, scorer, loss and tiers say
  std::string tiers;
  std::string basis = "offline";
  std::string recent = "auto";
  std::string dtype = "auto";
  std::string cache_dtype = "auto";
  std::string reference_length;
};

struct ExportOptions {
  std::filesystem::path model;
  std::filesystem::path output;
  std::filesystem::path profile;  // empty: none
  Budget budget;
  // None: full at 100 %; with a profile lukv-mixed where it has curves with tiers in few bits and
  // neither other tiers nor another basis are asked for, else lukv; without one uniform.
  std::optional<Method> method;
  std::optional<ScorerSpec> scorer;       // none: the profile's first, or snapkv
  std::optional<budget::CurveLoss> loss;  // none: budget::Policy says
  std::vector<Tier> tiers;                // none: see budget::TiersOf
  TierBasis basis = TierBasis::kOffline;
  std::optional<RowFormat> recent_format;   // none: budget::Policy says
  std::optional<DType> weights_dtype;       // of stored weights; none: the checkpoint's
  std::optional<RowFormat> cache_format;    // of keys and values; none: the weights'
  std::optional<int64_t> reference_length;  // none: the profile's context, or 4096
  int64_t sinks = 4;
  std::optional<int64_t> window;  // none: budget::WindowOf
  bool no_verify = false;
  bool force = false;
  int threads = 1;
  uint64_t seed = 42;  // recorded
  OptionTexts texts;   // recorded

  // Takes method, scorer, loss, tiers, basis and recent format from a policy, and records its name.
  void SetPolicy(const std::string& name, const budget::Policy& policy);
};

struct ExportPlan {
  Checkpoint checkpoint;
  DType weights_dtype = DType::kF32;
  Budget budget = {};
  std::optional<ProfileData> profile = {};
  std::string profile_sha256 = {};
  budget::BudgetPlan cache = {};

  // What users should know of the checkpoint and of the budget, a sentence each.
  [[nodiscard]] std::vector<std::string> Warnings() const;
  // Bytes of the cache at the reference length over those of the original model's.
  [[nodiscard]] double BudgetShare() const;
};

// Throws as MakeBudgetPlan does, kUsage without a model and for a reference length beyond the
// model's context, kBadInput for a profile of another model.
[[nodiscard]] ExportPlan PlanExport(const ExportOptions& options);
// Everything but the hashes of files and the verification.
[[nodiscard]] Manifest MakeManifest(const ExportPlan& plan, const ExportOptions& options);

}  // namespace kvc::bundle
