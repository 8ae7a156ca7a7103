#pragma once
// Generated tasks in the style of RULER [RULER]. They measure what its thirteen tasks measure, with
// sentences, words and texts of our own, so figures compare policies of kvc and not models across
// papers.
//
//   single           one fact among text: " The secret number for KEY is N."
//   multi-key        the same among three facts of other keys
//   multi-value      four numbers for one key, all asked
//   multi-query      four keys with a number each, all asked
//   tracking         five variables, each set to the one before: which hold the first one's number?
//   common-words     a numbered list in which ten words occur often and others rarely: which ten?
//   frequent-words   made-up words with frequencies 1/k^2: which three are the most frequent?
//
// The score of an answer is the share of the expected strings that it holds, case ignored, as in
// RULER. The words that lead into the answer (" Answer: The secret number for KEY is") always come
// after the compression (eval/compare/answers.h).

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "eval/tasks/task_prompt.h"

namespace kvc::eval {

// Returns the names above, in that order.
[[nodiscard]] const std::vector<std::string>& RulerTasks();

struct RulerOptions {
  std::vector<std::string> tasks = RulerTasks();
  std::vector<int64_t> lengths = {1024};  // tokens of prompt and answer, as RULER counts; lists
                                          // may be shorter by less than one entry
  int64_t samples = 5;                    // prompts for each task and length
  uint64_t seed = 42;
};

// Returns all prompts, by length, then task, then sample. The same seed gives the same prompts for
// every bundle of a model, and a task's prompts do not depend on which other tasks are asked.
// `haystack` gives the text around facts, and the words of common-words. Throws kUsage for an
// unknown task (naming the existing ones) and for a length without room (naming the least),
// kBadInput for a haystack without sentences or with too few words.
[[nodiscard]] std::vector<TaskPrompt> PlanRuler(const Tokenizer& tokenizer,
                                                const std::string& haystack,
                                                const RulerOptions& options);

// Returns the share of `expected` that occurs in `text`, case ignored. `expected` must not be
// empty.
[[nodiscard]] double Recall(std::string_view text, const std::vector<std::string>& expected);

}  // namespace kvc::eval
