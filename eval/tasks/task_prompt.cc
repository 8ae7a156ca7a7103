#include "eval/tasks/task_prompt.h"

#include <algorithm>

namespace kvc::eval {

int64_t LongestPrompt(std::span<const TaskPrompt> prompts) {
  int64_t longest = 0;
  for (const TaskPrompt& prompt : prompts) {
    const AskedPrompt& asked = prompt.asked;
    longest = std::max(
        longest, std::ssize(asked.context) + std::ssize(asked.question) + asked.answer_tokens);
  }
  return longest;
}

}  // namespace kvc::eval
