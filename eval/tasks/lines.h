#pragma once
// Line retrieval in the format of LongChat [LongChat]: a record of " line NAME: REGISTER_CONTENT is
// <N>" and a question about one line. Read from LongChat's JSONL: "prompt", whose last line is the
// question, "random_idx" with the asked name first, "expected_number".
//
// The question is followed by " The <REGISTER_CONTENT> in line NAME is <", fed after the
// compression (eval/compare/answers.h), so that models which were not trained to chat answer too;
// the first number of the answer counts.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "eval/tasks/task_prompt.h"

namespace kvc::eval {

struct LinesOptions {
  int64_t samples = 0;         // first prompts of the file; 0: all
  std::vector<int64_t> lines;  // lines of the record that are kept; none: all. The asked one stays
                               // where it is in proportion.
};

// Returns the prompts by number of lines, then in the file's order; a prompt's `length` is its
// number of lines. Throws kBadInput naming the file's line and the key that is missing or wrong.
[[nodiscard]] std::vector<TaskPrompt> PlanLines(const Tokenizer& tokenizer,
                                                const std::filesystem::path& file,
                                                const LinesOptions& options);

}  // namespace kvc::eval
