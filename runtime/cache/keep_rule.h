#pragma once
// A rule as a value: which rows of a prompt a layer's groups keep, said before their scores are
// known, where the number of rows does not depend on scores. Policy makes one
// (runtime/policy/decide.h) and executes it on the host, as a decision (row_moves.h); a backend may
// execute it where the scores lie (Backend::ApplyRule). Both keep the same rows.

#include <algorithm>
#include <cstdint>
#include <vector>

namespace kvc::runtime {

// One group. Of the working block's rows first .. first + candidates - 1 the only tier gets the
// min(tier_capacity, candidates) with the highest scores, of equal scores the older rows, in the
// order of their positions; the oldest `pinned` of them have a score above all others. The rows
// behind the candidates become the recent block.
struct KeepRule {
  int64_t first = 0;  // above 0 only in a layer with a window
  int64_t candidates = 0;
  int64_t pinned = 0;
  int64_t tier_capacity = 0;    // rows that the tier is allocated for
  int64_t recent_capacity = 0;  // likewise

  [[nodiscard]] int64_t kept() const { return std::min(tier_capacity, candidates); }
};

struct LayerRule {
  std::vector<KeepRule> groups;  // [n]
  int64_t query_rows = -1;       // of the ring; -1: as it is
};

}  // namespace kvc::runtime
