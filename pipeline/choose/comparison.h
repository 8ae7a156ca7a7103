#pragma once
// Measures the contestants of a comparison on text, needles and tasks. `kvc-eval compare` prints
// the results, and `kvc-export --method auto` chooses by them.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/base/thread_pool.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/quality_gates.h"
#include "eval/compare/walk.h"
#include "pipeline/choose/contestants.h"

namespace kvc::choose {

// Tasks to measure, settled before any bundle is loaded.
struct CompareTasks {
  eval::WalkOptions walk;
  eval::NeedleOptions needle;
  std::vector<std::vector<int32_t>> samples;  // context + decode tokens each
  std::vector<eval::NeedleCell> cells;
  std::vector<eval::TaskPrompt> ruler;

  [[nodiscard]] int64_t prompts() const;  // of all cells
};

// Result of a contestant's walk through the text. Seconds are processor time.
struct TextResult {
  double choosing_seconds = 0.0;        // for a prompt, to choose what is kept
  std::optional<double> token_seconds;  // of a token decoded alone; none: no room to time one
  eval::Divergence divergence;          // against the first contestant; its `reference` is empty
  // Bytes after the prefill over the original model's; of a full cache those of the prompt's rows.
  double prompt_share = 0.0;
};

struct NeedlesFound {
  std::vector<eval::NeedleCell> cells;  // without their prompts
  int64_t found = 0;
  double accuracy = 0.0;  // share of all prompts
};

// Results of one contestant; none for kinds that were not requested.
struct ComparisonLine {
  std::string name;
  std::string policy;  // budget::NamedPolicy's name; empty: the bundle's own
  std::string budget;
  std::string bundle;
  Method method = Method::kFull;
  ScorerSpec scorer;
  std::optional<TextResult> text;
  std::optional<NeedlesFound> needles;
  std::optional<eval::TaskScores> ruler;
};

struct Comparison {
  int64_t context = 0;  // tokens of a walk's prompt, and of what is predicted after it
  int64_t decode = 0;
  int64_t samples = 0;
  int64_t needles = 0;  // prompts
  int64_t ruler_prompts = 0;
  bool question_before = true;
  std::vector<ComparisonLine> lines;  // one for each contestant, the reference first
  // Policies whose budget has no room for what they always keep; they are left out and named here.
  std::vector<ImpossiblePolicy> impossible;
};

// Runs a comparison. Budgets are met at the context's length, or at the first needle length if
// there is no text. With a `progress_file` every finished sample and prompt is saved there and
// reused by a later call; the caller removes it. Throws like LoadContestants, and kUsage when the
// file is of another comparison. Collective: batches of prompts are divided among the ranks, rank 0
// has the file, and the seconds are those of the rank that measured.
[[nodiscard]] Comparison RunComparison(CompareRequest request,
                                       const CompareTasks& tasks,
                                       const Tokenizer& tokenizer,
                                       const std::filesystem::path& progress_file,
                                       ThreadPool& pool,
                                       Progress& progress,
                                       Ranks& ranks = OneRank());

// Compares every line except the reference with the limits. Policies that were impossible miss all
// of them: nobody knows what they would have cost.
[[nodiscard]] std::vector<eval::GateResult> CheckGates(const eval::QualityGates& gates,
                                                       const Comparison& comparison);

}  // namespace kvc::choose
