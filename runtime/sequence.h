#pragma once
// A sequence: its cache, and the handling of new tokens.

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "core/cache/cache_spec.h"

namespace kvc::scorers {
class Scorer;  // scorers/scorer.h
}

namespace kvc::runtime {

class Backend;        // runtime/backend.h
class SequenceCache;  // runtime/cache/kv_cache.h

// Treatment of new tokens when the recent block is full.
enum class DecodePolicy {
  kReallocate,  // its oldest are re-allocated into the tiers: the budget holds
  kAppend,      // the recent block grows: nothing that comes after the prompt is dropped; the rows
                // of the margin go to tokens of the prompt, and no query ring is kept
};

struct SequenceOptions {
  std::optional<CacheSpec> cache;  // instead of the manifest's: another budget or method
  DecodePolicy decode = DecodePolicy::kReallocate;
  int64_t chunk = 512;  // tokens of a prefill chunk
  int64_t reserve = 0;  // kFull: rows to allocate from the start (prompt + new tokens)
};

struct CacheCounters {
  int64_t full_bytes = 0;  // of the original model in its own type, same tokens
  int64_t logical_bytes = 0;
  int64_t allocated_bytes = 0;  // summed over live allocations
  int64_t peak_bytes = 0;       // highest allocated_bytes since the sequence began
  // With narrow tiers: tokens at full width (the recent ones too), in each narrower tier, and
  // dropped, summed over the groups of all layers; otherwise empty.
  std::vector<int64_t> tier_tokens;
  // Processor time, over all threads, spent so far on choosing what is kept, scores included.
  double choosing_seconds = 0.0;

  void AddTierTokens(const CacheCounters& other);
  // Returns tier_tokens as shares of their sum.
  [[nodiscard]] std::vector<double> TierShares() const;
};

// A sequence, made by Session::NewSequence. It keeps its backend, and may outlive its session. One
// thread at a time may use it; a clone is another sequence, which any other thread may use.
class Sequence {
 public:
  Sequence(std::shared_ptr<Backend> backend,
           std::unique_ptr<SequenceCache> cache,
           const SequenceOptions& options,
           std::shared_ptr<const scorers::Scorer> scorer);
  ~Sequence();
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;

  [[nodiscard]] int64_t length() const;
  [[nodiscard]] CacheCounters counters() const;
  // Returns a copy with its own cache, so that one prefill serves several continuations. It shares
  // with the original what never changes in one alone: backend, scorer and calibrated bases.
  [[nodiscard]] std::unique_ptr<Sequence> Clone() const;

  [[nodiscard]] const SequenceCache& cache() const { return *cache_; }

 private:
  friend class Session;

  std::shared_ptr<Backend> backend_;  // before cache_, which lies on its device
  std::unique_ptr<SequenceCache> cache_;
  SequenceOptions options_;                        // without the spec, which the cache has
  std::shared_ptr<const scorers::Scorer> scorer_;  // null with kFull
  double choosing_seconds_ = 0.0;                  // a clone starts from zero
};

}  // namespace kvc::runtime
