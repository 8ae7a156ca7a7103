#pragma once
// The factorization stage: reads a checkpoint, writes a thin checkpoint and factorization.json.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/base/sizes.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json_fwd.h"
#include "factorize/layer_factors.h"
#include "factorize/layout_choice.h"
#include "factorize/memory_table.h"
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

// Sizes that are known without any work, from config.json alone.
struct FactorizationPlan {
  LayoutChoice layout;
  Objective objective = Objective::kAuto;  // never kAuto in a plan that was made
  int64_t group_rank = 0;
  int64_t group_width = 0;       // heads x D
  double key_bytes_share = 0.0;  // of the original's
  int64_t full_elements = 0;     // that one token caches, keys and values
  int64_t thin_elements = 0;     // likewise
  int64_t rebuild_macs = 0;      // of one cached token
  MemoryTable memory;
  std::vector<LayoutRow> layouts;
};
[[nodiscard]] FactorizationPlan PlanFactorization(const FactorizeOptions& options);
// Returns the keys of --dry-run (docs/formats/factorization.md).
[[nodiscard]] Json ToJson(const FactorizationPlan& plan);

// Runs the stage and returns the content of factorization.json (docs/formats/factorization.md).
// Throws kUsage when something needs calibration text and there is none, kBadInput when it is too
// short. If the run ends early, what is tuned stays in OUT.partial, and the next run with the same
// options continues from it.
[[nodiscard]] Json FactorizeModel(const FactorizeOptions& options, Progress& progress);

}  // namespace kvc::factorize
