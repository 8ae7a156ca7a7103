#pragma once
// Generation of new tokens from prompts: prefills each prompt, then decodes all together, one token
// at a time.

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "core/base/progress.h"
#include "kernels/sampling.h"
#include "runtime/session.h"

namespace kvc {
class Tokenizer;  // core/tokenizer/tokenizer.h
}  // namespace kvc

namespace kvc::runtime {

struct GenerateOptions {
  int64_t max_new_tokens = 64;
  kernels::SamplingOptions sampling;
  uint64_t seed = 42;  // prompt i draws from seed + i
  std::vector<int32_t> stop_ids;
  SequenceOptions sequence;  // not read where a sequence is given
  // Called with each new token of output i as soon as it is known, in the caller's thread, but not
  // with a stop token; false: the text ends with it. What it throws ends the generation.
  std::function<bool(size_t i, int32_t id)> on_token;
};

struct Generation {
  std::vector<int32_t> ids;  // new tokens, without the stop token
  bool stopped = false;      // at a stop token
  bool cut = false;          // by the context length, before max_new_tokens
  bool halted = false;       // by on_token
  // The last token that was drawn, the stop token if it stopped. The sequence does not hold it yet:
  // it belongs in front of what continues the sequence.
  int32_t last = -1;
  CacheCounters cache;  // when it ended
};

struct GenerateResult {
  std::vector<Generation> outputs;  // one for each prompt
  int64_t prefill_tokens = 0;
  double prefill_seconds = 0.0;
  int64_t decode_tokens = 0;  // fed one by one, summed over the batch
  double decode_seconds = 0.0;

  // Return tokens per second; 0 when nothing was timed.
  [[nodiscard]] double PrefillRate() const;
  [[nodiscard]] double DecodeRate() const;
  // Returns the mean of the outputs' bytes, of which there must be some, rounded down; the tokens
  // of tiers are sums.
  [[nodiscard]] CacheCounters MeanCache() const;
};

// Returns the ids that end a text, for whatever generates one: those of the model's configuration,
// of the bundle's own generation_config.json (one that its manifest lists) and of the tokenizer.
[[nodiscard]] std::vector<int32_t> StopIds(const Bundle& bundle, const Tokenizer& tokenizer);

// Returns how many new tokens follow a prompt of `length` tokens: `wanted`, or what the model's
// context has room for.
[[nodiscard]] int64_t NewTokensWithin(int64_t context_length, int64_t length, int64_t wanted);

// Checks that every prompt has 1 to `context_length` tokens. Throws kBadInput naming the prompt.
void CheckPromptLengths(std::span<const std::vector<int32_t>> prompts, int64_t context_length);

// Generates. Reports progress as stage "decode". A sequence that has ended leaves the batch. Throws
// kUsage for max_new_tokens < 1, and what the session throws, with the number of the prompt where
// there are several. Prompts are checked before the first one is read.
[[nodiscard]] GenerateResult Generate(Session& session,
                                      std::span<const std::vector<int32_t>> prompts,
                                      const GenerateOptions& options,
                                      Progress& progress);

// Feeds `ids` to a sequence, prefilling an empty one and continuing any other, and generates one
// output: the next turn of a conversation. A prompt that is refused leaves the sequence as it was.
// Throws like the other one.
[[nodiscard]] GenerateResult Generate(Session& session,
                                      Sequence& sequence,
                                      std::span<const int32_t> ids,
                                      const GenerateOptions& options,
                                      Progress& progress);

}  // namespace kvc::runtime
