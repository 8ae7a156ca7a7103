#pragma once
// A comparison as JSON: what `kvc-eval compare` prints and writes, and what `kvc-export --method
// auto` keeps in the manifest.

#include <vector>

#include "core/io/json_fwd.h"
#include "pipeline/choose/comparison.h"

namespace kvc::choose {

// Returns [{name, policy, budget, bundle, method, scorer; with text choosing_seconds,
// token_seconds, kld_mean, ..., prompt_share; with needles cells, needles_found, needle_accuracy;
// with tasks ruler_score, ruler_cells}].
[[nodiscard]] Json ToJson(const std::vector<ComparisonLine>& lines);
// Returns {context, decode, samples, needles, ruler_prompts, question, lines, impossible}.
[[nodiscard]] Json ToJson(const Comparison& comparison);

}  // namespace kvc::choose
