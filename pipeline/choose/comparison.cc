#include "pipeline/choose/comparison.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/base/error.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "eval/compare/compare.h"
#include "pipeline/choose/comparison_progress.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

// Sequences that decode together, one for each contestant and prompt. A step reads all weights, so
// a few are much faster than one; beyond these, more only leave fewer batches for ranks to share
// (13 contestants on SmolLM2 take as long with 96).
constexpr int64_t kSequences = 24;
constexpr int64_t kSequenceBytes = int64_t{1} << 30;

// Tokens that each contestant decodes alone, to measure the time of one.
constexpr int64_t kTimedSteps = 8;

// Returns the number of `count` prompts of `length` tokens that are decoded together, at least one;
// batches are as equal as they can be.
int64_t PromptsAtOnce(const Contestants& contestants, int64_t length, int64_t count) {
  int64_t bytes = 0;
  for (const eval::Contestant& contestant : contestants.all) {
    const CacheSpec& spec =
        contestant.cache ? *contestant.cache : contestant.session->bundle().manifest().cache;
    bytes += PredictBytes(spec, length).allocated;
  }
  const int64_t by_rows = kSequences / std::ssize(contestants.all);
  const int64_t by_memory = kSequenceBytes / std::max<int64_t>(1, bytes);
  const int64_t most = std::max<int64_t>(1, std::min(by_rows, by_memory));
  const int64_t batches = std::max<int64_t>(1, (count + most - 1) / most);
  return std::max<int64_t>(1, (count + batches - 1) / batches);
}

// Scores the prompts that `state` has not yet: batches of prompts are parts of the ranks' work, and
// every round gives each rank one. `score(first, count, part)` appends the rows of prompts first ..
// first + count - 1 to `part`; rows(state) are the rows so far.
template <class Rows, class Score>
void ScoreInRounds(int64_t count,
                   int64_t batch,
                   Ranks& ranks,
                   ComparisonProgress& state,
                   const Rows& rows,
                   const Score& score) {
  while (std::ssize(rows(state)) < count) {
    const int64_t first = std::ssize(rows(state)) + ranks.rank() * batch;
    ComparisonProgress part;
    if (first < count) score(first, std::min<int64_t>(batch, count - first), part);
    if (ranks.is_only()) {
      for (auto& row : rows(part)) rows(state).push_back(std::move(row));
    } else {
      for (const std::string& scores : ranks.AllGather(part.Scores().dump())) {
        state.TakeScores(ParseJson(scores, "rank"), "rank");
      }
    }
    state.Save();
  }
}

void WalkSamples(const CompareTasks& tasks,
                 const Contestants& contestants,
                 ThreadPool& pool,
                 Progress& progress,
                 Ranks& ranks,
                 ComparisonProgress& state) {
  const auto count = std::ssize(tasks.samples);
  const int64_t batch = PromptsAtOnce(contestants, tasks.walk.context + tasks.walk.decode, count);
  const auto score = [&](int64_t first, int64_t size, ComparisonProgress& part) {
    const auto samples = std::span(tasks.samples).subspan(first, size);
    auto done = first * tasks.walk.decode;
    const auto tick = [&] {
      done += size;
      progress.Report("text", done, count * tasks.walk.decode);
    };
    eval::WalkOptions options = tasks.walk;
    options.timed_steps = first == 0 ? kTimedSteps : 0;
    part.samples = eval::CompareSamples(contestants.all, samples, options, pool, tick);
  };
  const auto rows = [](ComparisonProgress & of) -> auto& { return of.samples; };
  ScoreInRounds(count, batch, ranks, state, rows, score);
}

void AskNeedles(const CompareTasks& tasks,
                const Contestants& contestants,
                const Tokenizer& tokenizer,
                Progress& progress,
                Ranks& ranks,
                ComparisonProgress& state) {
  std::vector<NeedlePrompt> prompts;
  int64_t longest = 0;
  for (const auto& cell : tasks.cells) {
    prompts.insert(prompts.end(), cell.prompts.begin(), cell.prompts.end());
    longest = std::max(longest, cell.length);
  }
  const auto score = [&](int64_t first, int64_t size, ComparisonProgress& part) {
    for (const auto& scores :
         eval::CompareNeedles(contestants.all, tokenizer, std::span(prompts).subspan(first, size),
                              tasks.needle.question_before, tasks.needle.policy)) {
      auto& found = part.found.emplace_back();
      for (const eval::NeedleScore& of_contestant : scores) found.push_back(of_contestant.found);
    }
    progress.Report("needles", first + size, tasks.prompts());
  };
  const auto rows = [](ComparisonProgress & of) -> auto& { return of.found; };
  const auto count = std::ssize(prompts);
  const int64_t batch = PromptsAtOnce(contestants, longest, count);
  ScoreInRounds(count, batch, ranks, state, rows, score);
}

void AskRuler(const CompareTasks& tasks,
              const Contestants& contestants,
              const Tokenizer& tokenizer,
              Progress& progress,
              Ranks& ranks,
              ComparisonProgress& state) {
  int64_t longest = 0;
  for (const eval::TaskPrompt& prompt : tasks.ruler) {
    longest = std::max(longest, std::ssize(prompt.asked.context));
  }
  const eval::AskOptions options = {tasks.needle.question_before, tasks.needle.policy};
  const auto score = [&](int64_t first, int64_t size, ComparisonProgress& part) {
    std::vector<eval::AskedPrompt> asked;
    for (int64_t p = first; p < first + size; ++p) asked.push_back(tasks.ruler[p].asked);
    int64_t p = first;
    for (const auto& answers : eval::AnswerAll(contestants.all, tokenizer, asked, options)) {
      const eval::TaskPrompt& prompt = tasks.ruler[p++];
      auto& scores = part.ruler.emplace_back();
      for (const eval::Answer& answer : answers) scores.push_back(prompt.score(answer.text));
    }
    progress.Report("ruler", first + size, std::ssize(tasks.ruler));
  };
  const auto rows = [](ComparisonProgress & of) -> auto& { return of.ruler; };
  const auto count = std::ssize(tasks.ruler);
  const int64_t batch = PromptsAtOnce(contestants, longest, count);
  ScoreInRounds(count, batch, ranks, state, rows, score);
}

// Adds the processor time of one prompt's choosing, and of a token decoded alone with its share of
// it.
void AddSeconds(std::span<const eval::SampleScores> scores, TextResult& result) {
  double decoding = 0.0;
  double tokens = 0.0;
  double token = 0.0;
  for (const eval::SampleScores& sample : scores) {
    result.choosing_seconds += sample.prompt.choosing_seconds / static_cast<double>(scores.size());
    decoding += sample.end.choosing_seconds - sample.prompt.choosing_seconds;
    tokens += static_cast<double>(sample.nll.size());
    token = std::max(token, sample.token_seconds);
  }
  if (token > 0.0) result.token_seconds = token + decoding / tokens;
}

TextResult TextOf(const ComparisonProgress& state, size_t contestant, bool full) {
  TextResult result;
  std::vector<eval::SampleScores> scores;
  int64_t prompt_bytes = 0;
  int64_t full_bytes = 0;
  for (const auto& sample : state.samples) {
    scores.push_back(sample[contestant]);
    // What a full cache has allocated after the prompt is for the tokens to come, too.
    prompt_bytes +=
        full ? sample[contestant].prompt.logical_bytes : sample[contestant].prompt.allocated_bytes;
    full_bytes += sample[contestant].prompt.full_bytes;
  }
  AddSeconds(scores, result);
  result.divergence = eval::Summarise(scores);
  result.prompt_share = static_cast<double>(prompt_bytes) / static_cast<double>(full_bytes);
  return result;
}

NeedlesFound NeedlesOf(const CompareTasks& tasks,
                       const ComparisonProgress& state,
                       size_t contestant) {
  NeedlesFound result;
  size_t next = 0;
  for (const auto& cell : tasks.cells) {
    int64_t found = 0;
    for (int64_t i = 0; i < cell.samples; ++i) found += state.found[next++][contestant];
    result.found += found;
    const double accuracy = static_cast<double>(found) / static_cast<double>(cell.samples);
    result.cells.push_back({cell.length, cell.depth, cell.samples, accuracy, {}});
  }
  result.accuracy = static_cast<double>(result.found) / static_cast<double>(next);
  return result;
}

eval::TaskScores RulerOf(const CompareTasks& tasks,
                         const ComparisonProgress& state,
                         size_t contestant) {
  std::vector<double> scores;
  for (const auto& row : state.ruler) scores.push_back(row[contestant]);
  return eval::SummariseTasks(tasks.ruler, scores);
}

Comparison ResultOf(const CompareTasks& tasks,
                    const Contestants& contestants,
                    const ComparisonProgress& state) {
  Comparison result;
  result.context = tasks.walk.context;
  result.decode = tasks.walk.decode;
  result.samples = std::ssize(tasks.samples);
  result.needles = tasks.prompts();
  result.ruler_prompts = std::ssize(tasks.ruler);
  result.question_before = tasks.needle.question_before;
  for (size_t c = 0; c < contestants.all.size(); ++c) {
    const ContestantRecord& record = contestants.records[c];
    ComparisonLine line{record.name,
                        record.policy,
                        record.budget,
                        record.bundle,
                        record.method,
                        record.scorer,
                        {},
                        {},
                        {}};
    if (!state.samples.empty()) line.text = TextOf(state, c, record.method == Method::kFull);
    if (!state.found.empty()) line.needles = NeedlesOf(tasks, state, c);
    if (!state.ruler.empty()) line.ruler = RulerOf(tasks, state, c);
    result.lines.push_back(std::move(line));
  }
  result.impossible = contestants.impossible;
  return result;
}

eval::MeasuredQuality MeasuredOf(const ComparisonLine& line, const ComparisonLine& reference) {
  eval::MeasuredQuality measured;
  if (line.text) {
    measured.Set(line.text->divergence);
    measured.reference_perplexity = reference.text->divergence.model.perplexity;
  }
  if (line.needles) measured.needle_accuracy = line.needles->accuracy;
  if (line.ruler) measured.Set(*line.ruler);
  return measured;
}

}  // namespace

int64_t CompareTasks::prompts() const {
  int64_t count = 0;
  for (const auto& cell : cells) count += std::ssize(cell.prompts);
  return count;
}

Comparison RunComparison(CompareRequest request,
                         const CompareTasks& tasks,
                         const Tokenizer& tokenizer,
                         const fs::path& progress_file,
                         ThreadPool& pool,
                         Progress& progress,
                         Ranks& ranks) {
  request.reference_length = tasks.samples.empty() ? tasks.needle.lengths[0] : tasks.walk.context;
  request.append = tasks.walk.policy == runtime::DecodePolicy::kAppend;
  const Contestants contestants = LoadContestants(request, pool);
  for (const std::string& warning : contestants.warnings) progress.Warn(warning);
  ComparisonProgress state(progress_file, tasks, contestants, ranks);
  WalkSamples(tasks, contestants, pool, progress, ranks, state);
  AskNeedles(tasks, contestants, tokenizer, progress, ranks, state);
  AskRuler(tasks, contestants, tokenizer, progress, ranks, state);
  return ResultOf(tasks, contestants, state);
}

std::vector<eval::GateResult> CheckGates(const eval::QualityGates& gates,
                                         const Comparison& comparison) {
  std::vector<eval::GateResult> results;
  const auto add = [&](std::vector<eval::GateResult> more) {
    results.insert(results.end(), std::make_move_iterator(more.begin()),
                   std::make_move_iterator(more.end()));
  };
  const ComparisonLine& reference = comparison.lines[0];
  for (const ComparisonLine& line : std::span(comparison.lines).subspan(1)) {
    add(eval::CheckGates(gates, MeasuredOf(line, reference), line.name + " " + line.budget));
  }
  for (const ImpossiblePolicy& policy : comparison.impossible) {
    add(eval::FailGates(gates, policy.name + " " + policy.budget, policy.reason));
  }
  return results;
}

}  // namespace kvc::choose
