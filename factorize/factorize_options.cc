#include "factorize/factorize_options.h"

#include "core/io/json.h"
#include "model/compute.h"

namespace kvc::factorize {
namespace {

// Describes the tuning options for factorization.json and for the state of an unfinished run.
void DescribeTuning(const FactorizeOptions& options, Json& json) {
  json["tune"] = TuneText(options);
  if (!options.tunes()) return;
  json["tune_tokens"] = options.tune_tokens;
  json["device"] = options.tuning.cuda || options.global.compute.cuda ? "cuda" : "cpu";
  if (options.tune) {
    json["tune_passes"] = options.tuning.passes;
    json["lr"] = options.tuning.learning_rate;
    json["step_tokens"] = options.tuning.step_tokens;
    json["seed"] = options.tuning.seed;
  }
  if (options.tune_global) {
    json["global"] = {{"loss", OutputLossName(options.global.loss)},
                      {"passes", options.global.passes},
                      {"step_tokens", options.global.step_tokens},
                      {"lr", options.global.learning_rate},
                      {"precision", model::PrecisionName(options.global.compute.precision)},
                      {"seed", options.global.seed}};
  }
}

}  // namespace

const char* TuneText(const FactorizeOptions& options) {
  if (options.tune) return options.tune_global ? "local,global" : "local";
  return options.tune_global ? "global" : "none";
}

Json ToJson(const FactorizeOptions& options, const FileHashes& calibration) {
  Json json;
  if (options.source.empty()) {
    json["rank"] = options.rank.is_share ? Json(options.rank.share) : Json(options.rank.dims);
    json["layout"] = ToText(options.layout);
    json["objective"] = ObjectiveName(options.objective);
    json["svd"] = linalg::SvdBackendName(options.svd);
    json["spread"] = options.spread;
  }
  json["calib_tokens"] = options.calibration_tokens;
  json["window"] = options.window;
  json["held_back"] = options.held_back;
  DescribeTuning(options, json);
  json["calibration"] = Json::object();
  for (const auto& [name, hash] : calibration) json["calibration"][name] = hash;
  return json;
}

}  // namespace kvc::factorize
