#pragma once
// Questions about a text in a compressed cache, answered by greedy decoding. Every task of kvc-eval
// that reads what a model says (needles, RULER, lines, LongBench) asks through this header.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/runner.h"
#include "eval/compare/walk.h"
#include "eval/tasks/task_prompt.h"

namespace kvc::eval {

struct AskOptions {
  // The question is in the prompt when the cache is compressed, up to its lead; otherwise it is
  // decoded after the compression.
  bool question_before = true;
  runtime::DecodePolicy policy = runtime::DecodePolicy::kReallocate;
};

struct Answer {
  std::string text;
  runtime::CacheCounters cache;  // when it is given
};
// Answers all prompts: [prompt][contestant], all prompts together in memory. An answer ends at a
// token that ends a text of the first contestant's bundle (runtime::StopIds) and does not belong to
// it, or with its number of tokens.
[[nodiscard]] std::vector<std::vector<Answer>> AnswerAll(std::span<const Contestant> contestants,
                                                         const Tokenizer& tokenizer,
                                                         std::span<const AskedPrompt> prompts,
                                                         const AskOptions& options);

// Scores of one contestant on some prompts.
struct TaskCell {
  std::string task;
  int64_t length = 0;
  int64_t samples = 0;
  double score = 0.0;         // mean
  double score_stderr = 0.0;  // of the mean; 0 with one sample
};
struct TaskScores {
  double score = 0.0;           // mean over the cells, as RULER and LongBench average
  std::vector<TaskCell> cells;  // in the prompts' order
};
// Summarises `scores` [prompt], or those of the first prompts if not all were asked yet.
[[nodiscard]] TaskScores SummariseTasks(std::span<const TaskPrompt> prompts,
                                        std::span<const double> scores);

struct TaskResult {
  TaskScores scores;
  CacheMean cache;
};
// Collective: measures one bundle on all prompts, `batch` of them together; ranks share the
// batches. Reports stage "questions".
[[nodiscard]] TaskResult MeasureTasks(runtime::Session& session,
                                      const Tokenizer& tokenizer,
                                      std::span<const TaskPrompt> prompts,
                                      const AskOptions& options,
                                      int64_t batch,
                                      Progress& progress,
                                      Ranks& ranks = OneRank());

}  // namespace kvc::eval
