#pragma once
// Needle in a haystack through the real cache: a grid of prompt lengths and depths, needles among
// distractors (eval/tasks/needle_task.h), and answers decoded greedily.

#include <cstdint>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/walk.h"
#include "eval/tasks/needle_task.h"
#include "runtime/session.h"

namespace kvc::eval {

struct NeedleOptions {
  std::vector<int64_t> lengths = {512, 1024, 2048};  // tokens of the whole prompt
  std::vector<double> depths = {0.1, 0.5, 0.9};
  int64_t samples = 4;  // prompts for each (length, depth)
  int64_t distractors = 0;
  // The question is in the prompt when the cache is compressed, up to its lead into the answer
  // (NeedlePrompt::lead); otherwise it is decoded after the compression.
  bool question_before = true;
  uint64_t seed = 42;
  runtime::DecodePolicy policy = runtime::DecodePolicy::kReallocate;
};

struct NeedleCell {
  int64_t length = 0;
  double depth = 0.0;
  int64_t samples = 0;
  double accuracy = 0.0;
  std::vector<NeedlePrompt> prompts;  // what is asked
};

// Returns all prompts of the grid. The same seed gives the same prompts for every bundle of a
// model. Throws kUsage when a length has no room, kBadInput for a haystack without a sentence.
[[nodiscard]] std::vector<NeedleCell> PlanNeedles(const Tokenizer& tokenizer,
                                                  const std::string& haystack,
                                                  const NeedleOptions& options);

struct NeedleResult {
  double accuracy = 0.0;  // share of all prompts answered
  std::vector<NeedleCell> cells;
  CacheMean cache;
};
// Collective: ranks share the prompts, and all return the same.
[[nodiscard]] NeedleResult MeasureNeedles(runtime::Session& session,
                                          const Tokenizer& tokenizer,
                                          std::vector<NeedleCell> cells,
                                          const NeedleOptions& options,
                                          Progress& progress,
                                          Ranks& ranks = OneRank());

}  // namespace kvc::eval
