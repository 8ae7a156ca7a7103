#include "factorize/tuning_result.h"

#include "core/io/json.h"

namespace kvc::factorize {

Json ToJson(const LayerTuning& tuning) {
  return {{"error_before", tuning.error_before},
          {"error_after", tuning.error_after},
          {"kept_pass", tuning.kept_pass},
          {"lr", tuning.learning_rate}};
}

LayerTuning LayerTuningFromJson(const Json& json, const std::string& origin) {
  return {GetDouble(json, "error_before", origin), GetDouble(json, "error_after", origin),
          GetInt(json, "kept_pass", origin), GetDouble(json, "lr", origin)};
}

Json ToJson(const TuningCheck& check) {
  return {{"step", check.step},
          {"lr", check.learning_rate},
          {"train_loss", check.train_loss},
          {"check_loss", check.check_loss}};
}

TuningCheck TuningCheckFromJson(const Json& json, const std::string& origin) {
  return {GetInt(json, "step", origin), GetDouble(json, "lr", origin),
          GetDouble(json, "train_loss", origin), GetDouble(json, "check_loss", origin)};
}

Json ToJson(const GlobalTuning& tuning) {
  Json curve = Json::array();
  for (const TuningCheck& check : tuning.curve) curve.push_back(ToJson(check));
  return {{"loss", OutputLossName(tuning.loss)},
          {"lr", tuning.learning_rate},
          {"steps", tuning.steps},
          {"kept_step", tuning.kept_step},
          {"tokens", tuning.tokens},
          {"loss_before", tuning.loss_before},
          {"loss_after", tuning.loss_after},
          {"backoff", tuning.backoff},
          {"noise_tokens", tuning.noise_tokens ? Json(*tuning.noise_tokens) : Json(nullptr)},
          {"curve", curve}};
}

}  // namespace kvc::factorize
