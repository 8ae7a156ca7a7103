#pragma once
// What the factorization stage plans and finds, and its JSON (docs/formats/factorization.md).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json.h"
#include "factorize/layout_choice.h"
#include "factorize/memory_table.h"
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
};
// Returns the keys of --dry-run.
[[nodiscard]] Json ToJson(const FactorizationPlan& plan);

// The full model after the training that the thin one had, on the held-back windows.
struct ControlResult {
  Json training;     // what TuneGlobally returns; with kKl {"loss", "steps": 0}
  double kld = 0.0;  // to the untrained source, nats
  double perplexity = 0.0;
};
// Returns the training's keys, "kld" and "perplexity".
[[nodiscard]] Json ToJson(const ControlResult& control);

// The thin model that was written, and how it was made.
struct FactorizationResult {
  LayoutChoice layout;
  std::string objective;         // "unknown" for a thin MODEL without factorization.json
  double key_bytes_share = 0.0;  // of the original's
  TokenCost token_cost;
  // Records of the closed forms under factorization.json's keys: "layout_choice", "objective",
  // "sensitivity", "calibration_windows", "layers". With --source they are MODEL's, copied from its
  // file, and "started_from" has its tunings.
  Json closed_forms = Json::object();
  bool tuned = false;
  // Distances from the source on the held-back windows; none if there are no such windows.
  std::optional<model::ModelDistance> untuned;  // only if the model was tuned
  std::optional<model::ModelDistance> written;
  Json local_tuning;   // what TuneLocally returns; null without
  Json global_tuning;  // what TuneGlobally returns; null without
  std::optional<ControlResult> control;
  Json options;  // all of them, with the SHA-256 of each text
};
// Returns the content of factorization.json except "kvc".
[[nodiscard]] Json ToJson(const FactorizationResult& result);

}  // namespace kvc::factorize
