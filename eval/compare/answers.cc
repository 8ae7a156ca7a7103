#include "eval/compare/answers.h"

#include <algorithm>
#include <cmath>

#include "core/base/error.h"
#include "core/base/error_place.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"
#include "eval/compare/statistics.h"
#include "runtime/generator.h"

namespace kvc::eval {
namespace {

// The tokens that are prefilled, and those that are decoded one by one after them.
struct Feed {
  std::vector<int32_t> prefill;
  std::vector<int32_t> rest;
};

Feed Split(const AskedPrompt& prompt, bool question_before) {
  KVC_CHECK(
      prompt.lead >= 1 && prompt.lead <= std::ssize(prompt.question) && prompt.answer_tokens >= 1,
      kInternal, "question: expected a lead within it and room for an answer");
  Feed feed{prompt.context, prompt.question};
  if (question_before) {
    const auto lead = feed.rest.end() - prompt.lead;
    feed.prefill.insert(feed.prefill.end(), feed.rest.begin(), lead);
    feed.rest.erase(feed.rest.begin(), lead);
  }
  return feed;
}

// One answer in progress.
class Stream {
 public:
  Stream(std::span<const int32_t> rest, int64_t answer_tokens, std::span<const int32_t> stop_ids)
      : rest_(rest), answer_tokens_(answer_tokens), stop_ids_(stop_ids) {}

  // Returns the token to feed next, `logits` being those after the last one; kRest when the answer
  // is complete.
  int32_t Next(std::span<const float> logits) {
    if (fed_ < rest_.size()) return rest_[fed_++];
    if (done_) return Runner::kRest;
    const int32_t id = ArgMax(logits);
    const bool stop = std::find(stop_ids_.begin(), stop_ids_.end(), id) != stop_ids_.end();
    if (!stop) answer_.push_back(id);
    done_ = stop || std::ssize(answer_) == answer_tokens_;
    return done_ ? Runner::kRest : id;
  }
  [[nodiscard]] bool done() const { return done_; }
  [[nodiscard]] const std::vector<int32_t>& answer() const { return answer_; }

 private:
  std::span<const int32_t> rest_;
  int64_t answer_tokens_;
  std::span<const int32_t> stop_ids_;
  size_t fed_ = 0;
  std::vector<int32_t> answer_;
  bool done_ = false;
};

// Mean and its standard error.
void Average(std::span<const double> scores, TaskCell& cell) {
  cell.samples = std::ssize(scores);
  const auto n = static_cast<double>(scores.size());
  for (const double score : scores) cell.score += score / n;
  if (scores.size() < 2) return;
  double squares = 0.0;
  for (const double score : scores) squares += (score - cell.score) * (score - cell.score);
  cell.score_stderr = std::sqrt(squares / (n - 1.0) / n);
}

}  // namespace

std::vector<std::vector<Answer>> AnswerAll(std::span<const Contestant> contestants,
                                           const Tokenizer& tokenizer,
                                           std::span<const AskedPrompt> prompts,
                                           const AskOptions& options) {
  Runner runner(contestants, prompts.size());
  const std::vector<int32_t> stop_ids =
      runtime::StopIds(contestants[0].session->bundle(), tokenizer);
  std::vector<Feed> feeds;
  for (const AskedPrompt& prompt : prompts) feeds.push_back(Split(prompt, options.question_before));
  std::vector<std::vector<Stream>> streams(prompts.size());
  for (size_t p = 0; p < prompts.size(); ++p) {
    runtime::SequenceOptions base;
    base.decode = options.policy;
    base.reserve =
        std::ssize(feeds[p].prefill) + std::ssize(feeds[p].rest) + prompts[p].answer_tokens;
    AtPlace("prompt " + std::to_string(p + 1), [&] { runner.Prefill(p, feeds[p].prefill, base); });
    streams[p].assign(contestants.size(),
                      Stream(feeds[p].rest, prompts[p].answer_tokens, stop_ids));
  }
  bool open = true;
  while (open) {
    runner.Step([&](size_t p, size_t c) { return streams[p][c].Next(runner.logits(p, c)); });
    open = std::any_of(streams.begin(), streams.end(), [](const std::vector<Stream>& row) {
      return std::any_of(row.begin(), row.end(), [](const Stream& s) { return !s.done(); });
    });
  }
  std::vector<std::vector<Answer>> answers(prompts.size());
  for (size_t p = 0; p < prompts.size(); ++p) {
    for (size_t c = 0; c < contestants.size(); ++c) {
      answers[p].push_back({tokenizer.Decode(streams[p][c].answer()), runner.counters(p, c)});
    }
  }
  return answers;
}

TaskScores SummariseTasks(std::span<const TaskPrompt> prompts, std::span<const double> scores) {
  TaskScores result;
  std::vector<std::vector<double>> by_cell;
  for (size_t p = 0; p < scores.size(); ++p) {
    const TaskPrompt& prompt = prompts[p];
    size_t cell = 0;
    while (cell < result.cells.size() &&
           (result.cells[cell].task != prompt.task || result.cells[cell].length != prompt.length)) {
      ++cell;
    }
    if (cell == result.cells.size()) {
      result.cells.push_back({prompt.task, prompt.length, 0, 0.0, 0.0});
      by_cell.emplace_back();
    }
    by_cell[cell].push_back(scores[p]);
  }
  for (size_t cell = 0; cell < result.cells.size(); ++cell) {
    Average(by_cell[cell], result.cells[cell]);
    result.score += result.cells[cell].score / static_cast<double>(result.cells.size());
  }
  return result;
}

TaskResult MeasureTasks(runtime::Session& session,
                        const Tokenizer& tokenizer,
                        std::span<const TaskPrompt> prompts,
                        const AskOptions& options,
                        int64_t batch,
                        Progress& progress,
                        Ranks& ranks) {
  const Contestant alone[] = {{"", &session, {}}};
  const int64_t count = std::ssize(prompts);
  const int64_t batches = (count + batch - 1) / batch;
  const std::vector<int64_t> own = ranks.PartsOf(batches);
  std::vector<std::string> mine;  // of each batch: its prompts' scores and caches
  for (const int64_t part : own) {
    const auto together = prompts.subspan(part * batch, std::min(batch, count - part * batch));
    std::vector<AskedPrompt> asked;
    for (const TaskPrompt& prompt : together) asked.push_back(prompt.asked);
    const auto answers = AnswerAll(alone, tokenizer, asked, options);
    Json scores = Json::array();
    for (size_t i = 0; i < answers.size(); ++i) {
      scores.push_back({{"score", together[i].score(answers[i][0].text)},
                        {"cache", CountersToJson(answers[i][0].cache)}});
    }
    mine.push_back(scores.dump());
    progress.Report("questions", std::ssize(mine), std::ssize(own));
  }
  TaskResult result;
  std::vector<double> scores;
  for (const std::string& bytes : ranks.AllGatherParts(mine, batches)) {
    for (const Json& answer : ParseJson(bytes, "answers")) {
      scores.push_back(GetDouble(answer, "score", "answers"));
      result.cache.Add(CountersFromJson(answer, "cache", "answers"));
    }
  }
  result.scores = SummariseTasks(prompts, scores);
  return result;
}

}  // namespace kvc::eval
