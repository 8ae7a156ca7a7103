#include "model/adamw.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "model/training_state.h"

namespace kvc::model {

double LearningRate(const AdamWOptions& options, int64_t step) {
  const int64_t warmup =
      options.warmup >= 0 ? options.warmup : std::min<int64_t>(100, options.steps / 10);
  if (step < warmup) {
    return options.learning_rate * static_cast<double>(step + 1) / static_cast<double>(warmup);
  }
  const int64_t rest = std::max<int64_t>(1, options.steps - warmup - 1);
  const double done = static_cast<double>(step - warmup) / static_cast<double>(rest);
  const double cosine = 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, done)));
  return options.learning_rate * (options.last_rate_share + (1 - options.last_rate_share) * cosine);
}

void AdamWStep(const AdamWOptions& options,
               int64_t step,
               double norm,
               int64_t decayed,
               torch::Tensor& gradient,
               TrainingState& state) {
  const torch::NoGradGuard no_grad;
  const double rate = LearningRate(options, step);
  if (options.clip > 0 && norm > options.clip) {
    gradient.mul_(options.clip / norm);
  }
  state.first_moment.mul_(options.beta1).add_(gradient, 1 - options.beta1);
  state.second_moment.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
  const double correction1 = 1 - std::pow(options.beta1, static_cast<double>(step + 1));
  const double correction2 = 1 - std::pow(options.beta2, static_cast<double>(step + 1));
  const torch::Tensor scale =
      (state.second_moment / correction2).sqrt_().add_(options.epsilon);  // [count]
  state.values.narrow(0, 0, decayed).mul_(1 - rate * options.weight_decay);
  state.values.addcdiv_(state.first_moment, scale, -rate / correction1);
}

}  // namespace kvc::model
