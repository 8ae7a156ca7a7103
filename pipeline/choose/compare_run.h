#pragma once
// Measuring the contestants of a comparison (pipeline/choose/compare_policies.h) on text and
// needles: what `kvc-eval compare` prints and `kvc-export --method auto` chooses by.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/base/progress.h"
#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/walk.h"
#include "pipeline/choose/compare_policies.h"

namespace kvc::choose {

// What is measured, settled before any bundle is loaded.
struct CompareTasks {
  eval::WalkOptions walk;
  eval::NeedleOptions needle;
  std::vector<std::vector<int32_t>> samples;  // context + decode tokens each
  std::vector<eval::NeedleCell> cells;
  std::vector<eval::TaskPrompt> ruler;

  [[nodiscard]] int64_t prompts() const;
};

// {"context", "decode", "samples", "needles", "ruler_prompts", "lines": [one for each contestant,
// the reference first, with the processor seconds `choosing_seconds` of what a prompt is asked for
// what to keep, and `token_seconds` of a token decoded alone], "impossible": [{"name", "budget",
// "reason"}]}: policies whose budget has no room for what they always keep are left out and named.
// Budgets are met at the context's length, or at the first needle length where there is no text.
// With a `progress_file` every finished sample and prompt is saved there and taken from there by a
// later call; the caller removes it. Throws as MakeField does, and kUsage when the file is of
// another comparison.
[[nodiscard]] Json RunComparison(CompareRequest request,
                                 const CompareTasks& tasks,
                                 const Tokenizer& tokenizer,
                                 const std::filesystem::path& progress_file,
                                 ThreadPool& pool,
                                 Progress& progress);

}  // namespace kvc::choose
