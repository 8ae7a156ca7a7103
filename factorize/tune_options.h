#pragma once
// What a user can ask of tuning.

#include <cstdint>

namespace kvc::factorize {

struct TuneOptions {
  double learning_rate = 0.03;  // relative to what is trained and to its error (layer_tuner.h)
  int64_t passes = 4;           // over the training windows, at most
  int64_t step_tokens = 1024;   // of one step, at least one window
  uint64_t seed = 42;
};

}  // namespace kvc::factorize
