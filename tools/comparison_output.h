#pragma once
// Output of a comparison of policies, as JSON and as a table, for kvc-eval compare and kvc-export
// --method auto.

#include <vector>

#include "core/io/json.h"
#include "pipeline/choose/comparison.h"

namespace kvc::tools {

// Returns [{name, policy, budget, bundle, method, scorer; with text choosing_seconds,
// token_seconds, kld_mean, ..., prompt_share; with needles cells, needles_found, needle_accuracy;
// with tasks ruler_score, ruler_cells}].
[[nodiscard]] Json LinesToJson(const std::vector<choose::ComparisonLine>& lines);
// Returns {context, decode, samples, needles, ruler_prompts, question, lines, impossible}.
[[nodiscard]] Json ComparisonToJson(const choose::Comparison& comparison);
void PrintComparison(const choose::Comparison& comparison);

}  // namespace kvc::tools
