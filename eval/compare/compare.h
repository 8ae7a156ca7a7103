#pragma once
// Compares several policies on the same text and the same needles at once (eval/compare/runner.h).
// The first contestant is the reference of every divergence.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/runner.h"
#include "eval/compare/walk.h"
#include "eval/tasks/needle_task.h"
#include "runtime/session.h"

namespace kvc::eval {

// Counters of a cache; exact in both directions. FromJson throws kBadInput naming the key.
[[nodiscard]] Json CountersToJson(const runtime::CacheCounters& counters);
[[nodiscard]] runtime::CacheCounters CountersFromJson(const Json& json,
                                                      const char* key,
                                                      const std::string& origin);

// Scores of one contestant on one sample of text. Vectors are by token.
struct SampleScores {
  std::vector<float> nll;         // negative log-likelihood, nats
  std::vector<float> kld;         // KL(reference || contestant), nats
  int64_t same_top = 0;           // tokens whose most probable successor is the reference's
  runtime::CacheCounters prompt;  // after the prefill
  runtime::CacheCounters end;     // after the last token
  // Processor time of a token that is decoded alone, without choosing what is kept; 0 if not
  // measured.
  double token_seconds = 0.0;

  // Convert exactly in both directions; FromJson throws kBadInput naming the key.
  [[nodiscard]] Json ToJson() const;
  static SampleScores FromJson(const Json& json, const std::string& origin);
};

// Walks `samples` (context + decode tokens each, together) with every contestant. Returns
// [sample][contestant]. With `timed_steps` each contestant then continues alone for that many
// tokens of the first sample, if the context length has room for them. Calls `tick` for each token.
// Throws kBadShape when vocabularies differ.
[[nodiscard]] std::vector<std::vector<SampleScores>> CompareSamples(
    std::span<const Contestant> contestants,
    std::span<const std::vector<int32_t>> samples,
    const WalkOptions& options,
    ThreadPool& pool,
    const std::function<void()>& tick);

// A contestant's answer to a prompt, and its cache at the time of the answer.
struct NeedleScore {
  bool found = false;
  runtime::CacheCounters cache;
};
// Returns what each contestant answers, decoded greedily: [prompt][contestant], all prompts
// together in memory. With `question_before` the question is in the prompt that is compressed; the
// words that lead into the answer always come after it.
[[nodiscard]] std::vector<std::vector<NeedleScore>> CompareNeedles(
    std::span<const Contestant> contestants,
    const Tokenizer& tokenizer,
    std::span<const NeedlePrompt> prompts,
    bool question_before,
    runtime::DecodePolicy policy);

// Returns how many tokens the longest of the prompts and its answer feed at most.
[[nodiscard]] int64_t LongestNeedle(std::span<const NeedlePrompt> prompts);

// Summarises one contestant's scores over all samples; `reference` stays empty.
[[nodiscard]] Divergence Summarise(std::span<const SampleScores> scores);

}  // namespace kvc::eval
