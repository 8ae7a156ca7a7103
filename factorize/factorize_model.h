#pragma once
// The factorization stage: reads a checkpoint, writes a thin checkpoint and factorization.json.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/base/sizes.h"
#include "core/checkpoint/model_config.h"
#include "factorize/factorization.h"
#include "factorize/layer_factors.h"
#include "factorize/layout_choice.h"
#include "factorize/tune_options.h"

namespace kvc::factorize {

struct FactorizeOptions {
  std::filesystem::path model;
  // If not empty, `model` is thin, was made from this one, and its tuning is continued. Rank,
  // layout, objective and spread are then those that it has.
  std::filesystem::path source;
  std::filesystem::path output;
  bool force = false;
  RankRequest rank;
  LayoutRequest layout;
  Objective objective = Objective::kAuto;
  std::vector<std::filesystem::path> calibration;
  int64_t calibration_tokens = 16384;
  int64_t window = 512;
  int64_t held_back = 4;  // further windows on which KLD and perplexity are measured
  linalg::SvdBackend svd = linalg::SvdBackend::kLapack;
  bool spread = false;       // ranks over layers and groups, `rank` is their mean
  bool tune = false;         // --tune local
  bool tune_global = false;  // --tune global; after the local one with both
  bool control = false;      // the full model is given the global tuning as well
  int64_t tune_tokens = 65536;
  TuneOptions tuning;
  GlobalTuneOptions global;
  std::vector<int64_t> lengths = {4096, 32768, 131072, 1048576};  // of PlanFactorization's table

  [[nodiscard]] bool tunes() const { return tune || tune_global; }
};

// Returns the sizes of a run. Reads config.json alone.
[[nodiscard]] FactorizationPlan PlanFactorization(const FactorizeOptions& options);

// Runs the stage. Throws kUsage when something needs calibration text and there is none, kBadInput
// when it is too short. If the run ends early, what is tuned stays in OUT.partial, and the next run
// with the same options continues from it.
[[nodiscard]] FactorizationResult FactorizeModel(const FactorizeOptions& options,
                                                 Progress& progress);

}  // namespace kvc::factorize
