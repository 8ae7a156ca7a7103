#pragma once
// The measurement that all perplexities and divergences of kvc rest on: prefill a context,
// compress, then decode the rest of the text token by token through the real cache. One
// teacher-forced pass would never read the compressed cache.

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/base/thread_pool.h"
#include "core/tokenizer/tokenizer.h"
#include "runtime/session.h"

namespace kvc::eval {

struct WalkOptions {
  int64_t context = 1024;  // tokens prefilled
  int64_t decode = 256;    // tokens predicted after it, each from the cache
  int64_t samples = 8;
  int64_t batch = 8;  // samples decoded together
  runtime::DecodePolicy policy = runtime::DecodePolicy::kReallocate;
  int64_t timed_steps = 0;  // eval/compare/compare.h
};

// Returns windows of context + decode tokens, spread evenly over the tokens of `documents` joined.
// Returns fewer than `samples` when the text is short. Throws kBadInput when it is shorter than one
// window.
[[nodiscard]] std::vector<std::vector<int32_t>> CutSamples(
    const Tokenizer& tokenizer,
    const std::vector<std::string>& documents,
    const WalkOptions& options);

// Mean of cache counters over sequences.
class CacheMean {
 public:
  void Add(const runtime::CacheCounters& counters);
  // Returns the mean. Bytes are rounded; the tokens of tiers are sums, so that their shares are
  // means.
  [[nodiscard]] runtime::CacheCounters Mean() const;

 private:
  double full_ = 0.0, logical_ = 0.0, allocated_ = 0.0, peak_ = 0.0;
  runtime::CacheCounters tiers_;  // only their tokens
  int64_t count_ = 0;
};

struct Perplexity {
  double nll = 0.0;         // mean negative log-likelihood, nats
  double perplexity = 0.0;  // exp(nll)
  double stderr_nll = 0.0;  // of nll, from the spread between samples; 0 with one sample
  int64_t tokens = 0;
  CacheMean cache;
};
// Collective: ranks share the batches of samples, and all return the same.
[[nodiscard]] Perplexity MeasurePerplexity(runtime::Session& session,
                                           const std::vector<std::vector<int32_t>>& samples,
                                           const WalkOptions& options,
                                           ThreadPool& pool,
                                           Progress& progress,
                                           Ranks& ranks = OneRank());

struct Divergence {
  double kld_mean = 0.0;    // KL(reference || model) over tokens, nats
  double kld_stderr = 0.0;  // of kld_mean, from the spread between samples; 0 with one sample
  double kld_median = 0.0;
  double kld_p999 = 0.0;         // 99.9 % of the tokens are below
  double same_top = 0.0;         // share of tokens whose most probable next token agrees
  double same_top_stderr = 0.0;  // as kld_stderr
  Perplexity model;
  Perplexity reference;
};
// Collective: walks both sessions through the same samples in lock step. Throws kBadShape when
// their vocabularies differ.
[[nodiscard]] Divergence MeasureDivergence(runtime::Session& session,
                                           runtime::Session& reference,
                                           const std::vector<std::vector<int32_t>>& samples,
                                           const WalkOptions& options,
                                           ThreadPool& pool,
                                           Progress& progress,
                                           Ranks& ranks = OneRank());

}  // namespace kvc::eval
