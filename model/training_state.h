#pragma once
// The state that a training run must keep to resume: weights, the optimizer's moments, and a JSON
// with the step, the log and the batch source's state. It is one safetensors file that appears by
// rename.

#include <filesystem>

#include <torch/types.h>

#include "core/io/json.h"

namespace kvc::model {

struct TrainingState {
  torch::Tensor values;         // [count] weights (ParameterList's order)
  torch::Tensor first_moment;   // [count] of AdamW
  torch::Tensor second_moment;  // [count]
  torch::Tensor best;           // [count] the best weights so far; undefined where none are kept
  Json progress;                // "step", "log", "source", ...; of the run that wrote it
};

// Returns DIR/training_state.safetensors.
[[nodiscard]] std::filesystem::path TrainingStatePath(const std::filesystem::path& directory);

void SaveTrainingState(const TrainingState& state, const std::filesystem::path& path);
// Loads a state. Throws kBadInput when the file is broken or holds another number of parameters
// than `count`.
[[nodiscard]] TrainingState LoadTrainingState(const std::filesystem::path& path, int64_t count);

}  // namespace kvc::model
