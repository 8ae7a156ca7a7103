#pragma once
// What the two tunings find, and their JSON (docs/formats/factorization.md).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "factorize/tune_options.h"

namespace kvc::factorize {

// One layer's --tune local (factorize/layer_tuner.h).
struct LayerTuning {
  double error_before = 0.0;
  double error_after = 0.0;
  int64_t kept_pass = 0;
  double learning_rate = 0.0;
};
// Returns {"error_before", "error_after", "kept_pass", "lr"}.
[[nodiscard]] Json ToJson(const LayerTuning& tuning);
// Converts back. Throws kBadInput naming `origin` for other content.
[[nodiscard]] LayerTuning LayerTuningFromJson(const Json& json, const std::string& origin);

// A check of --tune global: the losses since the last one, and on the windows not trained on.
struct TuningCheck {
  int64_t step = 0;
  double learning_rate = 0.0;  // of that step
  double train_loss = 0.0;
  double check_loss = 0.0;
};
// Returns {"step", "lr", "train_loss", "check_loss"}.
[[nodiscard]] Json ToJson(const TuningCheck& check);
// Converts back. Throws kBadInput naming `origin` for other content.
[[nodiscard]] TuningCheck TuningCheckFromJson(const Json& json, const std::string& origin);

// The whole model's --tune global (factorize/tune_global.h).
struct GlobalTuning {
  OutputLoss loss = OutputLoss::kKl;
  double learning_rate = 0.0;
  int64_t steps = 0;
  int64_t kept_step = 0;  // 0: nothing was better than the start
  int64_t tokens = 0;     // of one pass
  double loss_before = 0.0;
  double loss_after = 0.0;
  double backoff = 1.0;  // share of the rate that was left
  // Number of tokens whose mean gradient is half noise (factorize/gradient_noise.h), if it can be
  // determined.
  std::optional<int64_t> noise_tokens;
  std::vector<TuningCheck> curve;
};
// Returns {"loss", "lr", "steps", "kept_step", "tokens", "loss_before", "loss_after", "backoff",
// "noise_tokens" (null if there is none), "curve"}.
[[nodiscard]] Json ToJson(const GlobalTuning& tuning);

}  // namespace kvc::factorize
