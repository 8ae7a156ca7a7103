#include "eval/tasks/longbench.h"

#include <algorithm>
#include <optional>

#include "core/base/error.h"
#include "core/io/json.h"
#include "eval/tasks/json_lines.h"
#include "eval/tasks/needle_task.h"
#include "eval/tasks/text_metrics.h"

namespace kvc::eval {
namespace {

enum class Metric { kF1, kRouge, kClass, kNumber, kCode };

struct Dataset {
  std::string_view name;
  Metric metric;
  int64_t answer_tokens;  // LongBench's limits
  bool first_line;        // of the answer
  std::string_view prompt;
};

constexpr std::string_view kQuestion = "{context}\n\nQuestion: {input}\nAnswer:";
constexpr std::string_view kSummary = "{context}\n\n{input}\nSummary:";
constexpr std::string_view kExamples = "{context}\n{input}";
constexpr std::string_view kRetrieval =
    "{context}\n\nWhich paragraph above does this abstract describe? {input}\nThe answer is: "
    "Paragraph";
constexpr std::string_view kCount =
    "{context}\n\nHow many different paragraphs are there above? {input}\nThe answer is:";
constexpr std::string_view kCode = "{context}{input}";

constexpr Dataset kDatasets[] = {
    {"narrativeqa", Metric::kF1, 128, false, kQuestion},
    {"qasper", Metric::kF1, 128, false, kQuestion},
    {"multifieldqa_en", Metric::kF1, 64, false, kQuestion},
    {"hotpotqa", Metric::kF1, 32, false, kQuestion},
    {"2wikimqa", Metric::kF1, 32, false, kQuestion},
    {"musique", Metric::kF1, 32, false, kQuestion},
    {"triviaqa", Metric::kF1, 32, true, kExamples},
    {"gov_report", Metric::kRouge, 512, false, kSummary},
    {"qmsum", Metric::kRouge, 512, false, kSummary},
    {"multi_news", Metric::kRouge, 512, false, kSummary},
    {"samsum", Metric::kRouge, 128, true, kExamples},
    {"trec", Metric::kClass, 64, true, kExamples},
    {"passage_retrieval_en", Metric::kNumber, 32, false, kRetrieval},
    {"passage_count", Metric::kNumber, 32, false, kCount},
    {"lcc", Metric::kCode, 64, false, kCode},
    {"repobench-p", Metric::kCode, 64, false, kCode},
};

const Dataset& FindDataset(std::string_view name, const std::string& origin) {
  if (name.ends_with("_e")) name.remove_suffix(2);
  std::string known;
  for (const Dataset& dataset : kDatasets) {
    if (dataset.name == name) return dataset;
    known += (known.empty() ? "" : ", ") + std::string(dataset.name);
  }
  KVC_THROW(kUnsupported,
            "{}: dataset: expected one of {}, got \"{}\"; Chinese datasets need a word segmenter "
            "that kvc does not have",
            origin, known, name);
}

double Score(Metric metric,
             std::string_view answer,
             const std::string& truth,
             const std::vector<std::string>& classes) {
  switch (metric) {
    case Metric::kF1:
      return QuestionF1(answer, truth);
    case Metric::kRouge:
      return RougeL(answer, truth);
    case Metric::kClass:
      return ClassScore(answer, truth, classes);
    case Metric::kNumber:
      return NumberScore(answer, truth);
    case Metric::kCode:
      return CodeSimilarity(answer, truth);
  }
  KVC_THROW(kInternal, "metric without a formula");
}

std::string_view FirstLine(std::string_view text) {
  while (!text.empty() && text.front() == '\n') text.remove_prefix(1);
  return text.substr(0, text.find('\n'));
}

std::vector<std::string> Strings(const Json& json, const char* key, const std::string& origin) {
  std::vector<std::string> values;
  for (const Json& value : GetArray(json, key, origin)) {
    KVC_CHECK(value.is_string(), kBadInput, "{}: {}: expected strings", origin, key);
    values.push_back(value.get<std::string>());
  }
  return values;
}

// A template with a record's {input} in all its places, cut at its context.
struct Template {
  std::string before_context;
  std::string asking;  // behind the context, up to the end of the first {input} there, or all of it
  std::string behind;  // what follows
};

constexpr std::string_view kContextMark = "{context}";
constexpr std::string_view kInputMark = "{input}";

std::string WithInput(std::string_view text, const std::string& input) {
  std::string result;
  for (size_t mark = text.find(kInputMark); mark != std::string_view::npos;
       mark = text.find(kInputMark)) {
    result += text.substr(0, mark);
    result += input;
    text.remove_prefix(mark + kInputMark.size());
  }
  return result += text;
}

Template FillTemplate(std::string_view text, const Json& json, const std::string& origin) {
  const size_t context = text.find(kContextMark);
  KVC_CHECK(context != std::string_view::npos &&
                text.find(kContextMark, context + 1) == std::string_view::npos,
            kUsage, "--template: expected {{context}} once, and {{input}}, got \"{}\"", text);
  const bool asks = text.find(kInputMark) != std::string_view::npos;
  const std::string input = asks ? GetString(json, "input", origin) : "";
  const std::string_view rest = text.substr(context + kContextMark.size());
  const size_t mark = rest.find(kInputMark);
  const size_t end = mark == std::string_view::npos ? rest.size() : mark + kInputMark.size();
  return {WithInput(text.substr(0, context), input), WithInput(rest.substr(0, end), input),
          WithInput(rest.substr(end), input)};
}

// Removes the middle when there are more than `room`.
std::vector<int32_t> LeaveOutMiddle(std::vector<int32_t> ids, int64_t room) {
  if (std::ssize(ids) <= room) return ids;
  const int64_t head = room / 2;
  ids.erase(ids.begin() + head, ids.end() - (room - head));
  return ids;
}

AskedPrompt BuildPrompt(const Tokenizer& tokenizer,
                        const Template& parts,
                        const Json& json,
                        const std::string& origin,
                        const LongBenchOptions& options,
                        int64_t answer_tokens) {
  AskedPrompt asked;
  asked.answer_tokens = answer_tokens;
  if (!(parts.asking + parts.behind).empty()) {
    asked.question = EncodeContinuation(tokenizer, parts.asking + parts.behind);
    const auto without = EncodeContinuation(tokenizer, parts.asking);
    const auto same =
        std::mismatch(without.begin(), without.end(), asked.question.begin(), asked.question.end());
    asked.lead = std::max<int64_t>(1, asked.question.end() - same.second);
  }
  const std::vector<int32_t> start = StartOfText(tokenizer);
  const int64_t room =
      options.max_length - answer_tokens - std::ssize(asked.question) - std::ssize(start);
  KVC_CHECK(
      room > 1, kUsage,
      "--max-length: expected room for a context beside question and answer of {} tokens, got {}",
      options.max_length - room, options.max_length);
  auto context =
      LeaveOutMiddle(tokenizer.Encode(parts.before_context + GetString(json, "context", origin),
                                      SpecialTokens::kNone),
                     room);
  KVC_CHECK(!context.empty(), kBadInput, "{}: context: expected text, got none", origin);
  if (asked.question.empty()) {  // the context's last token leads into the answer
    asked.question.push_back(context.back());
    context.pop_back();
    asked.lead = 1;
  }
  asked.context = start;
  asked.context.insert(asked.context.end(), context.begin(), context.end());
  return asked;
}

}  // namespace

std::vector<TaskPrompt> PlanLongBench(const Tokenizer& tokenizer,
                                      const std::filesystem::path& file,
                                      const LongBenchOptions& options) {
  std::vector<TaskPrompt> prompts;
  for (const auto& [origin, json] : ReadJsonLines(file)) {
    if (options.samples > 0 && std::ssize(prompts) == options.samples) break;
    const Dataset& dataset = FindDataset(GetString(json, "dataset", origin), origin);
    const std::vector<std::string> truths = Strings(json, "answers", origin);
    KVC_CHECK(!truths.empty(), kBadInput, "{}: answers: expected at least one, got none", origin);
    std::vector<std::string> classes;
    if (dataset.metric == Metric::kClass) classes = Strings(json, "all_classes", origin);
    TaskPrompt prompt;
    prompt.task = dataset.name;
    prompt.asked = BuildPrompt(
        tokenizer,
        FillTemplate(options.prompt.empty() ? dataset.prompt : options.prompt, json, origin), json,
        origin, options, dataset.answer_tokens);
    prompt.score = [&dataset, truths, classes](const std::string& answer) {
      const std::string_view counted = dataset.first_line ? FirstLine(answer) : answer;
      double best = 0.0;
      for (const std::string& truth : truths) {
        best = std::max(best, Score(dataset.metric, counted, truth, classes));
      }
      return best;
    };
    prompts.push_back(std::move(prompt));
  }
  return prompts;
}

}  // namespace kvc::eval
