#include "runtime/sequence.h"

namespace kvc::runtime {

CacheCounters CachedSequence::counters() const {
  CacheCounters counters;
  counters.full_bytes = OriginalBytesPerToken(cache_->spec()) * cache_->length();
  counters.logical_bytes = cache_->logical_bytes();
  counters.allocated_bytes = cache_->meter().live_bytes();
  counters.peak_bytes = cache_->meter().peak_bytes();
  return counters;
}

std::unique_ptr<Sequence> CachedSequence::Clone() const {
  SequenceOptions options;
  options.decode = policy_;
  options.chunk = chunk_;
  return std::make_unique<CachedSequence>(cache_->Clone(), options, scorer_);
}

}  // namespace kvc::runtime
