#pragma once
// A decision as a value: which rows of which block a layer's groups keep, and where. Policy makes
// one from scores (runtime/policy), a backend executes it for all groups of a layer in one call
// (Backend::Apply). It holds numbers alone, so that a test can write one down.

#include <cstdint>
#include <vector>

namespace kvc::runtime {

// Stands for the recent block (before a prompt is compressed: the working block) among tiers.
inline constexpr int64_t kRecentBlock = -1;

// A row of a group as it lies before the moves.
struct RowSource {
  int64_t block = kRecentBlock;  // a tier's index or kRecentBlock
  int64_t row = 0;

  friend bool operator==(const RowSource&, const RowSource&) = default;
};

// One tier as it shall be.
struct TierMoves {
  int64_t capacity = 0;         // rows that it is allocated for
  std::vector<RowSource> rows;  // what it holds, in order
  std::vector<float> scores;    // of these rows
};

// One group. Rows of the recent block that leave it and are in no tier are dropped.
struct RowMoves {
  std::vector<TierMoves> tiers;  // [tiers]; empty: the tiers stay as they are
  int64_t leave_recent = 0;      // oldest rows that leave the recent block
  int64_t recent_capacity = -1;  // rows that it is allocated for; -1: as it is
};

struct LayerMoves {
  std::vector<RowMoves> groups;  // [n]
  int64_t query_rows = -1;       // of the ring; -1: as it is
};

}  // namespace kvc::runtime
