#pragma once
// Results of measurements as JSON, with the keys that kvc-run, kvc-eval and kvc-bench print and
// that manifests and reports keep.

#include <span>
#include <vector>

#include "core/io/json_fwd.h"
#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/quality_gates.h"
#include "eval/compare/walk.h"
#include "runtime/sequence.h"

namespace kvc::eval {

// Returns {full_bytes, logical_bytes, allocated_bytes, peak_bytes}; with narrow tiers also
// tier_shares: the shares of all tokens at full width, in each narrower tier, dropped.
[[nodiscard]] Json CacheToJson(const runtime::CacheCounters& cache);

// Returns [{length, depth, accuracy, samples}].
[[nodiscard]] Json CellsToJson(const std::vector<NeedleCell>& cells);
// Returns [{task, length if there is one, score, stderr, samples}].
[[nodiscard]] Json CellsToJson(const std::vector<TaskCell>& cells);
// Adds kld_mean, kld_stderr, kld_median, kld_p999, same_top, same_top_stderr and perplexity.
void AddDivergence(const Divergence& divergence, Json& result);
// Adds nll, stderr, tokens and cache.
void AddWalk(const Perplexity& walked, Json& result);

// If a limit was set, adds "gates", [{name, limit, value (null: not measured), passed, and line and
// reason unless they are empty}], and "gate", "passed" or "failed".
void AddGates(std::span<const GateResult> gates, Json& result);

}  // namespace kvc::eval
