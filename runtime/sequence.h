#pragma once
// A sequence as the session sees it: the cache, and what to do when it is full.

#include <memory>
#include <utility>

#include "runtime/cache/kv_cache.h"
#include "runtime/session.h"
#include "scorers/scorer.h"

namespace kvc::runtime {

// The only implementation of Sequence.
class CachedSequence : public Sequence {
 public:
  // `scorer` must outlive the sequence; null with kFull.
  CachedSequence(std::unique_ptr<SequenceCache> cache,
                 const SequenceOptions& options,
                 const scorers::Scorer* scorer)
      : cache_(std::move(cache)), policy_(options.decode), chunk_(options.chunk), scorer_(scorer) {}

  [[nodiscard]] int64_t length() const override { return cache_->length(); }
  [[nodiscard]] CacheCounters counters() const override;
  [[nodiscard]] std::unique_ptr<Sequence> Clone() const override;

  [[nodiscard]] SequenceCache& cache() { return *cache_; }
  [[nodiscard]] const SequenceCache& cache() const { return *cache_; }
  [[nodiscard]] DecodePolicy policy() const { return policy_; }
  [[nodiscard]] int64_t chunk() const { return chunk_; }
  [[nodiscard]] const scorers::Scorer* scorer() const { return scorer_; }
  // Adds to CacheCounters::choosing_seconds, which a clone begins anew.
  void Charge(double seconds) { choosing_seconds_ += seconds; }

 private:
  std::unique_ptr<SequenceCache> cache_;
  DecodePolicy policy_;
  int64_t chunk_;
  const scorers::Scorer* scorer_;
  double choosing_seconds_ = 0.0;
};

}  // namespace kvc::runtime
