#pragma once
// LongBench's files [LongBench]: JSONL with "input", "context", "answers", "dataset" and, for
// classes, "all_classes". The metrics are LongBench's (eval/tasks/text_metrics.h); the prompts are
// plain ones of our own unless a template is given, so figures compare bundles here, not papers.
//
//   datasets                                              metric        prompt
//   narrativeqa qasper multifieldqa_en hotpotqa           QuestionF1    {context}\n\nQuestion:
//     2wikimqa musique                                                  {input}\nAnswer:
//   triviaqa                                              QuestionF1    {context}\n{input}
//   gov_report qmsum multi_news                           RougeL {context}\n\n{input}\nSummary:
//   samsum                                                RougeL        {context}\n{input}
//   trec                                                  ClassScore    {context}\n{input}
//   passage_retrieval_en                                  NumberScore   ...Which paragraph...
//   passage_count                                         NumberScore   ...How many different...
//   lcc repobench-p                                       CodeSimilarity {context}{input}
//
// For trec, triviaqa and samsum the answer's first line counts. The text after the {input} that
// follows the context (if there is none, the last token) is fed after the compression. The best of
// the expected answers counts. A name may end in "_e" (LongBench-E).

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "eval/tasks/task_prompt.h"

namespace kvc::eval {

struct LongBenchOptions {
  int64_t samples = 0;        // first prompts of the file; 0: all
  int64_t max_length = 4096;  // tokens of prompt and answer; of a longer context the middle is left
                              // out, as in LongBench
  std::string prompt;         // with {context} and, anywhere, {input}; empty: as above
};

// Returns the prompts in the file's order. Throws kBadInput naming the line and the key,
// kUnsupported for a dataset without a metric here (the Chinese ones: their metrics need a word
// segmenter), kUsage for a template without {context} or a `max_length` that the question alone
// fills.
[[nodiscard]] std::vector<TaskPrompt> PlanLongBench(const Tokenizer& tokenizer,
                                                    const std::filesystem::path& file,
                                                    const LongBenchOptions& options);

}  // namespace kvc::eval
