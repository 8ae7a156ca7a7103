#pragma once
// What must hold of a sequence's cache between two calls. Tests check it after every step.

#include <cstdint>
#include <string>
#include <vector>

#include "core/cache/cache_spec.h"
#include "runtime/cache/kv_cache.h"

namespace kvc::runtime {

// A block as numbers: no pointers, so that a test can write one down.
struct BlockSnapshot {
  int64_t rows = 0;
  int64_t capacity = 0;
  int64_t bytes_per_row = 0;
  std::vector<int32_t> positions;  // [rows]; empty where the block keeps none
  std::vector<float> scores;       // [rows]; empty where the block keeps none
};

struct GroupSnapshot {
  std::vector<BlockSnapshot> tiers;
  BlockSnapshot recent;
  std::vector<int32_t> tier_positions;  // with a window: room for those of the tiers' rows
};

struct CacheSnapshot {
  CacheSpec spec;
  int64_t length = 0;                              // tokens of the sequence
  int64_t live_bytes = 0;                          // as metered
  std::vector<std::vector<GroupSnapshot>> layers;  // [L][n]
};

[[nodiscard]] CacheSnapshot TakeSnapshot(const SequenceCache& cache);

// All violations, one line each, empty when there are none:
//   rows fit their blocks; the meter counts what the blocks and rings take;
//   kFull holds every token, with a window the last ones; else the newest `window` tokens lie in
//   the recent block and no token is held twice; groups of a layer have the same recent rows;
//   positions ascend (with narrow tiers only in the recent block) and end with the newest token;
//   sinks are pinned, no score is a NaN; with a window, a layer holds at most its rows, and none
//   that the newest query did not see.
[[nodiscard]] std::vector<std::string> Violations(const CacheSnapshot& snapshot);

// Throws kInternal with all violations.
void CheckInvariants(const SequenceCache& cache);

}  // namespace kvc::runtime
