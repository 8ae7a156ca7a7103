#pragma once
// What the factorization stage plans and finds, and its JSON (docs/formats/factorization.md).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "factorize/factorize_options.h"
#include "factorize/layout_choice.h"
#include "factorize/memory_table.h"
#include "factorize/rank_cost.h"
#include "factorize/tuning_result.h"
#include "model/compare.h"

namespace kvc::factorize {

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
  RankCost rank_cost;
};
// Returns the keys of --dry-run.
[[nodiscard]] Json ToJson(const FactorizationPlan& plan);

// Thin keys of one layer, and how well they fit.
struct LayerFit {
  std::vector<int64_t> group_ranks;          // [n]
  std::vector<double> head_logit_errors;     // [G] relative
  std::vector<std::vector<double>> spectra;  // [n] of [m]
};
// The closed forms that were computed.
struct ClosedForms {
  std::optional<LayoutReport> layout_choice;       // --layout auto
  std::optional<std::vector<double>> sensitivity;  // [L] --spread
  int64_t calibration_windows = 0;
  std::vector<LayerFit> layers;
};

// The full model after the training that the thin one had, on the held-back windows.
struct ControlResult {
  OutputLoss loss = OutputLoss::kKl;
  std::optional<GlobalTuning> training;  // none with kKl, which has nothing to train
  double kld = 0.0;                      // to the untrained source, nats
  double perplexity = 0.0;
};
// Returns the training's keys ({"loss", "steps": 0} without one), "kld" and "perplexity".
[[nodiscard]] Json ToJson(const ControlResult& control);

// The thin model that was written, and how it was made.
struct FactorizationResult {
  LayoutChoice layout;
  std::string objective;         // "unknown" for a thin MODEL without factorization.json
  double key_bytes_share = 0.0;  // of the original's
  TokenCost token_cost;
  std::optional<ClosedForms> closed_forms;  // none with --source
  // With --source: MODEL's record of its closed forms, copied from its file as it stands;
  // "started_from" has its tunings.
  Json inherited;
  // Distances from the source on the held-back windows; none if there are no such windows.
  std::optional<model::ModelDistance> untuned;  // only if the model was tuned
  std::optional<model::ModelDistance> written;
  std::vector<LayerTuning> local_tuning;  // [L]; empty without
  std::optional<GlobalTuning> global_tuning;
  std::optional<ControlResult> control;
  FactorizeOptions options;
  FileHashes calibration;  // of the texts
};
// Returns the content of factorization.json except "kvc".
[[nodiscard]] Json ToJson(const FactorizationResult& result);

}  // namespace kvc::factorize
