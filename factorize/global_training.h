#pragma once
// The training loop of --tune global: batches, steps, checks, state on disk.
// factorize/tune_global.h says what is trained and why the steps are as they are.

#include <filesystem>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/base/ranks.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/calibration_text.h"
#include "factorize/model_gradient.h"
#include "factorize/tuning_result.h"

namespace kvc::factorize {

// Training text: the windows, the inputs of the first layer for them, and the full model's last
// hidden states.
struct TrainingText {
  const Windows& windows;
  std::vector<torch::Tensor> embedded;  // [T, E] each
  std::vector<torch::Tensor> hidden;    // [T, E] each, the full model's last; undefined with kCe

  [[nodiscard]] TrainedWindow Window(int64_t i) const {
    return {embedded[i], {windows[i], hidden[i]}};
  }
};
// Collective: the full model's states of a window are computed by one rank, and all get them.
[[nodiscard]] TrainingText ReadTrainingText(const Checkpoint& source,
                                            const Windows& windows,
                                            const GlobalTuneOptions& options,
                                            Progress& progress,
                                            Ranks& ranks);

// Trains `model`, or resumes from the state in the file `state`, and leaves it with the best
// weights. `stage` names the training in progress and messages; on the CPU it has `workers`
// threads. Returns and throws what TuneGlobally does. Collective: batch i of a step, or of a check,
// is computed by rank i mod size.
[[nodiscard]] GlobalTuning TrainGlobally(TrainedModel& model,
                                         const TrainingText& text,
                                         const GlobalTuneOptions& options,
                                         const std::filesystem::path& state,
                                         const std::string& stage,
                                         int workers,
                                         Progress& progress,
                                         Ranks& ranks);

}  // namespace kvc::factorize
