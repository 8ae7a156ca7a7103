#pragma once
// Scores of one layer's prompt, shared by caches that all hold it and need the same scores, at any
// budgets.

#include <cstdint>
#include <memory>
#include <vector>

#include "core/cache/cache_spec.h"
#include "runtime/cache/kv_cache.h"
#include "scorers/scorer.h"

namespace kvc::runtime {

class PlacedScores;  // runtime/backend.h

class PromptScores {
 public:
  explicit PromptScores(int64_t layer) : layer_(layer) {}
  struct Scored {
    std::vector<GroupScores> groups;             // [n]; empty where they have stayed on the device
    std::shared_ptr<const PlacedScores> placed;  // these
    double seconds = 0.0;                        // processor time that they took
  };
  // Returns the scores of an earlier cache with the same scorer, window, sinks, formats and tiers
  // that may stay on the device alike; null when there is none. Valid until the next Add.
  [[nodiscard]] const Scored* Find(const scorers::Scorer* scorer, const CacheSpec& spec) const;
  // Adds scores. Borrows the spec.
  const Scored& Add(const scorers::Scorer* scorer, const CacheSpec& spec, Scored scored);

 private:
  struct Entry {
    const scorers::Scorer* scorer = nullptr;
    const CacheSpec* spec = nullptr;
    Scored scored;
  };
  int64_t layer_;
  std::vector<Entry> entries_;
};

}  // namespace kvc::runtime
