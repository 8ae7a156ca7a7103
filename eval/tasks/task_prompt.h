#pragma once
// A question about a text, with its marking. Every task of kvc-eval consists of these: it writes
// its prompts and marks answers, and knows no model and no runtime (eval/compare/answers.h asks).

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace kvc::eval {

// A prompt: context | question. The end of the question, `lead`, is always fed after the
// compression; otherwise the first token of an answer would be predicted from the uncompressed
// cache.
struct AskedPrompt {
  std::vector<int32_t> context;
  std::vector<int32_t> question;
  int64_t lead = 1;           // 1 .. question.size()
  int64_t answer_tokens = 1;  // decoded at most
};

// A question with its marking.
struct TaskPrompt {
  std::string task;    // what its score is averaged with: "single", "hotpotqa"
  int64_t length = 0;  // likewise; 0: lengths are not told apart
  AskedPrompt asked;
  std::function<double(const std::string&)> score;  // of an answer's text, 0 to 1
};

// Returns the tokens of the longest prompt together with its answer; 0 where there is no prompt.
[[nodiscard]] int64_t LongestPrompt(std::span<const TaskPrompt> prompts);

}  // namespace kvc::eval
