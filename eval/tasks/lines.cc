#include "eval/tasks/lines.h"

#include <algorithm>
#include <sstream>
#include <string>

#include "core/base/error.h"
#include "core/io/json.h"
#include "eval/tasks/json_lines.h"
#include "eval/tasks/needle_task.h"
#include "eval/tasks/text_metrics.h"

namespace kvc::eval {
namespace {

// Room for a number of five digits, one token each.
constexpr int64_t kAnswerTokens = 8;

// A prompt of the file, in parts.
struct Record {
  std::string head;                // before the first line of the record
  std::vector<std::string> lines;  // with their line feeds
  std::string tail;                // between record and question
  std::string question;
  std::string name;  // of the asked line
  std::string number;
  int64_t asked = 0;  // index of the asked line
};

Record ReadRecord(const Json& json, const std::string& origin) {
  Record record;
  const Json& index = GetArray(json, "random_idx", origin);
  KVC_CHECK(!index.empty() && index[0].is_string(), kBadInput,
            "{}: random_idx: expected the asked line's name first", origin);
  record.name = index[0].get<std::string>();
  record.number = std::to_string(GetInt(json, "expected_number", origin));
  std::string prompt = GetString(json, "prompt", origin);
  prompt.erase(prompt.find_last_not_of(" \n") + 1);
  const size_t last = prompt.rfind('\n');
  KVC_CHECK(last != std::string::npos, kBadInput,
            "{}: prompt: expected lines and a question on the last one", origin);
  record.question = prompt.substr(last);
  std::istringstream text(prompt.substr(0, last));
  std::string line;
  record.asked = -1;
  while (std::getline(text, line)) {
    line += '\n';
    if (line.starts_with("line ")) {
      if (line.starts_with("line " + record.name + ":")) record.asked = std::ssize(record.lines);
      record.lines.push_back(line);
    } else {
      (record.lines.empty() ? record.head : record.tail) += line;
    }
  }
  KVC_CHECK(record.asked >= 0, kBadInput, "{}: prompt: expected a line \"{}\", got none", origin,
            record.name);
  return record;
}

TaskPrompt Ask(const Tokenizer& tokenizer, const Record& record, int64_t count) {
  const auto all = std::ssize(record.lines);
  const int64_t before = record.asked * count / all;
  const int64_t first = std::min(record.asked - before, all - count);
  std::string context = record.head;
  for (int64_t i = first; i < first + count; ++i) context += record.lines[i];
  context += record.tail;
  TaskPrompt prompt;
  prompt.task = "lines";
  prompt.length = count;
  prompt.asked.context = StartOfText(tokenizer);
  const auto ids = tokenizer.Encode(context, SpecialTokens::kNone);
  prompt.asked.context.insert(prompt.asked.context.end(), ids.begin(), ids.end());
  prompt.asked.question = EncodeContinuation(tokenizer, record.question);
  const auto lead =
      EncodeContinuation(tokenizer, " The <REGISTER_CONTENT> in line " + record.name + " is <");
  prompt.asked.question.insert(prompt.asked.question.end(), lead.begin(), lead.end());
  prompt.asked.lead = std::ssize(lead);
  prompt.asked.answer_tokens = kAnswerTokens;
  prompt.score = [number = record.number](const std::string& answer) {
    const auto numbers = NumbersIn(answer);
    return !numbers.empty() && numbers[0] == number ? 1.0 : 0.0;
  };
  return prompt;
}

}  // namespace

std::vector<TaskPrompt> PlanLines(const Tokenizer& tokenizer,
                                  const std::filesystem::path& file,
                                  const LinesOptions& options) {
  std::vector<Record> records;
  for (const auto& [origin, json] : ReadJsonLines(file)) {
    if (options.samples > 0 && std::ssize(records) == options.samples) break;
    records.push_back(ReadRecord(json, origin));
  }
  std::vector<TaskPrompt> prompts;
  constexpr int64_t kAllLines = 0;
  for (const int64_t count :
       options.lines.empty() ? std::vector<int64_t>{kAllLines} : options.lines) {
    for (const Record& record : records) {
      const auto all = std::ssize(record.lines);
      KVC_CHECK(count <= all, kUsage, "--lines: expected at most the {} lines of {}, got {}", all,
                file.string(), count);
      prompts.push_back(Ask(tokenizer, record, count == kAllLines ? all : count));
    }
  }
  return prompts;
}

}  // namespace kvc::eval
