#pragma once
// Predicts what a factorization costs each of several ranks (core/base/ranks.h): memory, bytes sent
// and read, and products, from a configuration and the options alone. docs/design/ranks.md derives
// the terms and compares them with runs.

#include <cstdint>
#include <string>
#include <vector>

#include "core/checkpoint/model_config.h"
#include "core/io/json_fwd.h"
#include "factorize/factorize_options.h"

namespace kvc::factorize {

// One stage of the rank that has the most to do.
struct StageCost {
  std::string name;
  int64_t memory = 0;  // bytes at once, beside the program and the mapped checkpoint
  int64_t sent = 0;    // bytes to other ranks; it receives about as many
  int64_t read = 0;    // bytes of weights, in the checkpoint's type
  double flops = 0.0;  // of products; an addition and a multiplication are two
  double alone = 0.0;  // of `flops` that run on one thread: decompositions
};

struct RankCost {
  int ranks = 1;
  int threads = 1;  // of a rank
  std::vector<StageCost> stages;

  // Returns the memory of the largest stage.
  [[nodiscard]] int64_t memory() const;
};
// Returns {"ranks", "threads", "memory_bytes", "stages": [{"stage", "memory_bytes", "sent_bytes",
// "read_bytes", "flops", "flops_alone"}]}.
[[nodiscard]] Json ToJson(const RankCost& cost);

// The layout and rank that are known beforehand.
struct PlannedKeys {
  LayoutChoice layout;
  Objective objective = Objective::kAuto;  // resolved
  int64_t group_rank = 0;
};
// Predicts the stages that `options` ask for, with weights of two bytes in the checkpoint.
[[nodiscard]] RankCost PredictRankCost(const ModelConfig& config,
                                       const PlannedKeys& keys,
                                       const FactorizeOptions& options,
                                       int ranks,
                                       int threads);

// Returns the number of sums that a calibration part has (factorize/key_collector.h).
[[nodiscard]] int64_t NumKeySums(const ModelConfig& config,
                                 int64_t num_groups,
                                 ErrorWeights weights,
                                 bool met);

}  // namespace kvc::factorize
