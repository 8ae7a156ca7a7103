#pragma once
// User options of tuning.

#include <cstdint>
#include <string_view>

#include "model/compute.h"

namespace kvc::factorize {

// Options of --tune local: each layer alone (factorize/tune_local.h).
struct TuneOptions {
  double learning_rate = 0.03;  // relative to what is trained and to its error (layer_tuner.h)
  int64_t passes = 4;           // over the training windows, at most
  int64_t step_tokens = 1024;   // of one step, at least one window
  uint64_t seed = 42;
  bool cuda = false;  // computes on a CUDA device, in float32
};

// Loss at the model's output that --tune global minimises (factorize/output_loss.h).
enum class OutputLoss { kKl, kCe };
[[nodiscard]] std::string_view OutputLossName(OutputLoss loss);  // "kl", "ce"
// Parses a name. Throws kUsage listing the names.
[[nodiscard]] OutputLoss OutputLossFromName(std::string_view name);

// Options of --tune global: the whole model (factorize/tune_global.h).
struct GlobalTuneOptions {
  OutputLoss loss = OutputLoss::kKl;
  double learning_rate = 0.01;  // relative to what is trained and to its error (tune_global.h)
  int64_t passes = 1;           // over the training windows, at most
  int64_t step_tokens = 1024;   // of one step, at least one window
  int64_t pass_checks = 4;      // times in each pass that the windows not trained on are measured
  uint64_t seed = 42;
  model::Compute compute;
};

}  // namespace kvc::factorize
