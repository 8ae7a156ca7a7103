#include "eval/compare/compare.h"

#include <algorithm>

#include "core/base/error.h"
#include "core/base/error_place.h"
#include "core/cache/manifest.h"
#include "core/io/json.h"
#include "eval/compare/answers.h"
#include "eval/compare/statistics.h"

namespace kvc::eval {
namespace {

// Tokens decoded beyond the expected answer's length: a model may put a filler word or a quote
// first.
constexpr int64_t kExtraTokens = 4;

// Continues after the first sample with its last token, again and again.
void TimeSteps(std::span<const Contestant> contestants,
               std::span<const int32_t> sample,
               const WalkOptions& options,
               Runner& runner,
               std::vector<SampleScores>& scores) {
  const int64_t length = options.context + options.decode - 1 + options.timed_steps;
  for (size_t c = 0; c < contestants.size(); ++c) {
    if (length > contestants[c].session->bundle().manifest().model.context_length) continue;
    for (int64_t step = 0; step < options.timed_steps; ++step) {
      scores[c].token_seconds +=
          runner.StepAlone(0, c, sample.back()) / static_cast<double>(options.timed_steps);
    }
  }
}

}  // namespace

Json CountersToJson(const runtime::CacheCounters& counters) {
  return {counters.full_bytes, counters.logical_bytes, counters.allocated_bytes,
          counters.peak_bytes, counters.tier_tokens,   counters.choosing_seconds};
}

runtime::CacheCounters CountersFromJson(const Json& json,
                                        const char* key,
                                        const std::string& origin) {
  const Json& values = GetArray(json, key, origin);
  KVC_CHECK(values.size() == 6 && values[4].is_array(), kBadInput,
            "{}: {}: expected four numbers, a list and a number, got {}", origin, key,
            values.dump());
  return {values[0], values[1], values[2], values[3], values[4].get<std::vector<int64_t>>(),
          values[5]};
}

Json SampleScores::ToJson() const {
  return {{"nll", nll},
          {"kld", kld},
          {"same_top", same_top},
          {"prompt", CountersToJson(prompt)},
          {"end", CountersToJson(end)},
          {"token_seconds", token_seconds}};
}

SampleScores SampleScores::FromJson(const Json& json, const std::string& origin) {
  SampleScores scores;
  scores.nll = GetArray(json, "nll", origin).get<std::vector<float>>();
  scores.kld = GetArray(json, "kld", origin).get<std::vector<float>>();
  scores.same_top = GetInt(json, "same_top", origin);
  scores.prompt = CountersFromJson(json, "prompt", origin);
  scores.end = CountersFromJson(json, "end", origin);
  scores.token_seconds = GetDouble(json, "token_seconds", origin);
  return scores;
}

std::vector<std::vector<SampleScores>> CompareSamples(std::span<const Contestant> contestants,
                                                      std::span<const std::vector<int32_t>> samples,
                                                      const WalkOptions& options,
                                                      ThreadPool& pool,
                                                      const std::function<void()>& tick) {
  const size_t count = contestants.size();
  Runner runner(contestants, samples.size());
  runtime::SequenceOptions base;
  base.decode = options.policy;
  base.reserve = options.context + options.decode;
  std::vector<std::vector<SampleScores>> scores(samples.size(), std::vector<SampleScores>(count));
  for (size_t s = 0; s < samples.size(); ++s) {
    AtPlace("sample " + std::to_string(s + 1),
            [&] { runner.Prefill(s, std::span(samples[s]).first(options.context), base); });
    for (size_t c = 0; c < count; ++c) scores[s][c].prompt = runner.counters(s, c);
  }
  for (int64_t step = 0; step < options.decode; ++step) {
    const int64_t position = options.context + step;
    const auto rows = static_cast<int64_t>(samples.size() * count);
    pool.ParallelFor(rows, 1, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        const auto s = static_cast<size_t>(row) / count;
        const auto c = static_cast<size_t>(row) % count;
        const auto p = runner.logits(s, 0);
        const auto q = runner.logits(s, c);
        SampleScores& score = scores[s][c];
        score.nll.push_back(static_cast<float>(NegativeLogLikelihood(q, samples[s][position])));
        score.kld.push_back(c == 0 ? 0.0F : static_cast<float>(KlDivergence(p, q)));
        score.same_top += c == 0 || ArgMax(p) == ArgMax(q) ? 1 : 0;
      }
    });
    tick();
    if (step + 1 < options.decode)
      runner.Step([&](size_t s, size_t) { return samples[s][position]; });
  }
  for (size_t s = 0; s < samples.size(); ++s) {
    for (size_t c = 0; c < count; ++c) scores[s][c].end = runner.counters(s, c);
  }
  TimeSteps(contestants, samples[0], options, runner, scores[0]);
  return scores;
}

int64_t LongestNeedle(std::span<const NeedlePrompt> prompts) {
  int64_t longest = 0;
  for (const NeedlePrompt& prompt : prompts) {
    const int64_t answer = std::ssize(prompt.answer) + kExtraTokens;  // its last one is not fed
    longest =
        std::max(longest, std::ssize(prompt.context) + std::ssize(prompt.question) + answer - 1);
  }
  return longest;
}

std::vector<std::vector<NeedleScore>> CompareNeedles(std::span<const Contestant> contestants,
                                                     const Tokenizer& tokenizer,
                                                     std::span<const NeedlePrompt> prompts,
                                                     bool question_before,
                                                     runtime::DecodePolicy policy) {
  std::vector<AskedPrompt> asked;
  for (const NeedlePrompt& prompt : prompts) {
    asked.push_back(
        {prompt.context, prompt.question, prompt.lead, std::ssize(prompt.answer) + kExtraTokens});
  }
  const AskOptions options = {question_before, policy};
  const auto answers = AnswerAll(contestants, tokenizer, asked, options);
  std::vector<std::vector<NeedleScore>> scores(prompts.size());
  for (size_t p = 0; p < prompts.size(); ++p) {
    for (const Answer& answer : answers[p]) {
      scores[p].push_back({NeedleAnswered(answer.text, prompts[p].value), answer.cache});
    }
  }
  return scores;
}

}  // namespace kvc::eval
