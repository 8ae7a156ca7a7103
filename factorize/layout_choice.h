#pragma once
// The layout of thin keys: the user's request, and its resolution for a model, by name or by
// comparing the layouts that its family can have.

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/json_fwd.h"
#include "factorize/calibration_text.h"
#include "factorize/layer_factors.h"
#include "factorize/memory_table.h"
#include "model/compare.h"

namespace kvc::factorize {

struct LayoutChoice {
  KeyLayout layout = KeyLayout::kLatent;
  int64_t num_groups = 1;
};

// A request for a layout, independent of the model.
struct LayoutRequest {
  bool automatic = true;  // the best one that the model can have; the other fields are ignored
  KeyLayout layout = KeyLayout::kLatent;
  int64_t num_groups = 0;  // of kLatent; 0: one for each kv head
};
// Parses "auto", "absorb", "latent:N", "latent:heads", "post-rope" or "rope-pairs". Throws kUsage
// listing them.
[[nodiscard]] LayoutRequest ParseLayout(const std::string& text);
// Returns the text that ParseLayout takes for `request`.
[[nodiscard]] std::string ToText(const LayoutRequest& request);

// Returns the layout of a request. An automatic one is the layout that loses least at equal bytes
// on SmolLM2 without tuning (docs/experiments/2026-11-thin-keys-by-layout.md), of the layouts that
// can have `objective`: absorb without rotation, otherwise the joint latent or post-rope. Throws
// kUsage for a layout that the family cannot have, naming those that it can.
[[nodiscard]] LayoutChoice ResolveLayout(const LayoutRequest& request,
                                         const ModelConfig& config,
                                         Objective objective = Objective::kAuto);
// Returns the text that ParseLayout takes: "absorb", "latent:1", "post-rope", "rope-pairs".
[[nodiscard]] std::string LayoutText(const LayoutChoice& choice);

// Qualities that are worse than the best one by at most this much count as equal, and the cheapest
// decode step among the equals wins.
inline constexpr double kEqualKldRatio = 1.1;
inline constexpr double kEqualKldMargin = 0.001;  // nats

// A layout that was measured.
struct MeasuredLayout {
  LayoutChoice choice;
  Objective objective = Objective::kAuto;
  int64_t rank = 0;              // of the first group
  double key_bytes_share = 0.0;  // of the original's
  double kld = 0.0;
  double perplexity = 0.0;
  TokenCost cost;
};
// Why a layout was chosen, and among which, in the order of their KLD; none if nothing was
// compared.
struct LayoutReport {
  std::string reason;
  std::vector<MeasuredLayout> candidates;
};
// Returns {"candidates": [{"layout", "objective", "rank", "key_bytes_share", "kld", "perplexity",
// "key_bytes", "rebuild_macs", "score_macs"}], "reason"}.
[[nodiscard]] Json ToJson(const LayoutReport& report);

struct LayoutComparison {
  LayoutChoice choice;
  std::vector<LayerFactors> factors;  // of the choice; empty when nothing was compared
  LayoutReport report;
};
// Factors every layout that the family and the objective can have at the same share of the key
// bytes, in one pass over the calibration windows, and measures each on the reference's windows
// (core/checkpoint/model_config.h says what a family can have). Without a reference (no text is
// held back), or with one candidate only, the choice is ResolveLayout's and the reason says so. The
// rank must be a share. Throws kUsage when no layout can have the objective.
[[nodiscard]] LayoutComparison CompareLayouts(const Checkpoint& source,
                                              const RankRequest& rank,
                                              Objective objective,
                                              const Windows& calibration,
                                              const model::ReferenceRun* reference,
                                              const linalg::Svd& svd,
                                              Progress& progress,
                                              Ranks& ranks = OneRank());

}  // namespace kvc::factorize
