#include "runtime/sequence.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "runtime/backend.h"
#include "runtime/cache/kv_cache.h"

namespace kvc::runtime {
namespace {

std::vector<int64_t> TierTokens(const SequenceCache& cache) {
  std::vector<int64_t> tokens(cache.spec().tiers.size() + 1, 0);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    for (const GroupCache& group : cache.layer(l).groups) {
      for (size_t t = 0; t < group.tiers.size(); ++t) tokens[t] += group.tiers[t].rows();
      tokens.front() += group.recent.rows();
      tokens.back() += cache.spec().SeenTokens(l, cache.length()) - group.rows();
    }
  }
  return tokens;
}

}  // namespace

void CacheCounters::AddTierTokens(const CacheCounters& other) {
  tier_tokens.resize(std::max(tier_tokens.size(), other.tier_tokens.size()), 0);
  for (size_t t = 0; t < other.tier_tokens.size(); ++t) tier_tokens[t] += other.tier_tokens[t];
}

std::vector<double> CacheCounters::TierShares() const {
  const int64_t sum = std::accumulate(tier_tokens.begin(), tier_tokens.end(), int64_t{0});
  std::vector<double> shares;
  for (const int64_t tokens : tier_tokens) {
    shares.push_back(static_cast<double>(tokens) / static_cast<double>(sum));
  }
  return shares;
}

Sequence::Sequence(std::shared_ptr<Backend> backend,
                   std::unique_ptr<SequenceCache> cache,
                   const SequenceOptions& options,
                   std::shared_ptr<const scorers::Scorer> scorer)
    : backend_(std::move(backend)),
      cache_(std::move(cache)),
      options_(options),
      scorer_(std::move(scorer)) {
  options_.cache.reset();
}

Sequence::~Sequence() = default;

int64_t Sequence::length() const { return cache_->length(); }

CacheCounters Sequence::counters() const {
  CacheCounters counters;
  counters.full_bytes = OriginalBytes(cache_->spec(), cache_->length());
  counters.logical_bytes = cache_->logical_bytes();
  counters.allocated_bytes = cache_->meter().live_bytes();
  counters.peak_bytes = cache_->meter().peak_bytes();
  counters.choosing_seconds = choosing_seconds_;
  if (cache_->spec().has_narrow_tiers()) counters.tier_tokens = TierTokens(*cache_);
  return counters;
}

std::unique_ptr<Sequence> Sequence::Clone() const {
  return std::make_unique<Sequence>(backend_, cache_->Clone(), options_, scorer_);
}

}  // namespace kvc::runtime
