#pragma once
// AdamW [AdamW] over one flat buffer of weights, with a linear warm-up, a cosine decay to a share
// of the rate, and gradient clipping. Shared by training from scratch and tuning of a whole model.

#include <cstdint>

#include "model/tensor_fwd.h"

namespace kvc::model {

struct AdamWOptions {
  int64_t steps = 1000;  // of the whole run
  double learning_rate = 3e-3;
  double last_rate_share = 0.1;  // of learning_rate, reached by the cosine at the last step
  int64_t warmup = -1;           // steps; -1: min(100, steps / 10)
  double weight_decay = 0.01;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double clip = 1.0;  // largest norm of the gradient; 0: any
};

// Returns the learning rate of a step (0 is the first). The warm-up reaches learning_rate at step
// `warmup` - 1.
[[nodiscard]] double LearningRate(const AdamWOptions& options, int64_t step);

// Applies step `step` to `state` with LearningRate: theta -= rate (m_hat / (sqrt(v_hat) + epsilon)
// + decay theta) (Algorithm 2 of [AdamW]). `norm` is the 2-norm of `gradient` [count], which is
// clipped in place. Only the first `decayed` weights are decayed.
void AdamWStep(const AdamWOptions& options,
               int64_t step,
               double norm,
               int64_t decayed,
               torch::Tensor& gradient,
               TrainingState& state);

}  // namespace kvc::model
