#include "runtime/policy/prompt_scores.h"

#include <algorithm>
#include <utility>

#include "runtime/policy/decide.h"

namespace kvc::runtime {
namespace {

// Returns true if two caches of the same prompt get the same scores and losses from the same
// scorer.
bool AskTheSame(const CacheSpec& a, const CacheSpec& b, int64_t layer) {
  if (a.window != b.window || a.sinks != b.sinks || a.key_format != b.key_format ||
      a.value_format != b.value_format || CountsAreGiven(a, layer) != CountsAreGiven(b, layer) ||
      a.has_narrow_tiers() != b.has_narrow_tiers()) {
    return false;
  }
  if (!a.has_narrow_tiers()) return true;
  return a.basis == b.basis && a.bases == b.bases && a.tiers == b.tiers;
}

}  // namespace

const PromptScores::Scored* PromptScores::Find(const scorers::Scorer* scorer,
                                               const CacheSpec& spec) const {
  for (const Entry& entry : entries_) {
    if (entry.scorer == scorer && AskTheSame(*entry.spec, spec, layer_)) return &entry.scored;
  }
  return nullptr;
}

const PromptScores::Scored& PromptScores::Add(const scorers::Scorer* scorer,
                                              const CacheSpec& spec,
                                              Scored scored) {
  return entries_.emplace_back(Entry{scorer, &spec, std::move(scored)}).scored;
}

}  // namespace kvc::runtime
