#include "factorize/factorize_model.h"

#include <memory>
#include <numeric>
#include <optional>

#include "core/checkpoint.h"
#include "core/error.h"
#include "core/files.h"
#include "core/tokenizer.h"
#include "core/version.h"
#include "factorize/calibration_text.h"
#include "factorize/closed_forms.h"
#include "factorize/memory_table.h"
#include "factorize/thin_layer.h"
#include "factorize/thin_writer.h"
#include "factorize/tune_local.h"
#include "model/streamed.h"

namespace kvc::factorize {
namespace {

TextRequest RequestText(const FactorizeOptions& options) {
  TextRequest request;
  request.files = options.calibration;
  request.window = options.window;
  request.calibration = options.calibration_tokens;
  request.held_back = options.held_back;
  request.tuning = options.tune ? options.tune_tokens : 0;
  return request;
}

double KeyBytesShare(const ModelConfig& config, const KeyFactors& keys) {
  int64_t width = 0;
  for (const auto& ranks : keys.ranks) width = std::accumulate(ranks.begin(), ranks.end(), width);
  return static_cast<double>(width) /
         static_cast<double>(config.num_layers * config.num_kv_heads * config.head_width);
}

Json DescribeOptions(const FactorizeOptions& options) {
  Json json;
  json["rank"] = options.rank.is_share ? Json(options.rank.share) : Json(options.rank.dims);
  json["layout"] = options.layout;
  json["objective"] = ObjectiveName(options.objective);
  json["calib_tokens"] = options.calibration_tokens;
  json["window"] = options.window;
  json["held_back"] = options.held_back;
  json["svd"] = SvdBackendName(options.svd);
  json["spread"] = options.spread;
  json["tune"] = options.tune ? "local" : "none";
  if (options.tune) {
    json["tune_tokens"] = options.tune_tokens;
    json["tune_passes"] = options.tuning.passes;
    json["lr"] = options.tuning.learning_rate;
    json["seed"] = options.tuning.seed;
  }
  json["calibration"] = Json::object();
  for (const auto& file : options.calibration) {
    json["calibration"][file.filename().string()] = Sha256File(file);
  }
  return json;
}

Json DescribeLayers(const std::vector<LayerFactors>& factors) {
  Json layers = Json::array();
  for (const LayerFactors& layer : factors) {
    double mean = 0.0;
    for (const double error : layer.logit_errors) mean += error;
    Json entry;
    entry["rank"] = std::accumulate(layer.ranks.begin(), layer.ranks.end(), int64_t{0});
    entry["logit_error"] = mean / static_cast<double>(layer.logit_errors.size());
    entry["group_ranks"] = layer.ranks;
    entry["head_logit_errors"] = layer.logit_errors;
    entry["spectra"] = layer.spectra;
    layers.push_back(std::move(entry));
  }
  return layers;
}

// Measures models against the source on the held-back windows, if there are any.
class HeldBack {
 public:
  HeldBack(const Checkpoint& source, const Windows& windows, Progress& progress)
      : source_(source), progress_(progress) {
    if (!windows.empty()) reference_ = model::RunReference(source, windows, progress);
  }
  // Null when no window is held back.
  [[nodiscard]] const model::ReferenceRun* reference() const {
    return reference_ ? &*reference_ : nullptr;
  }
  void MeasureUntuned(const KeyFactors& keys,
                      const std::vector<LayerFactors>& factors,
                      Json& result) const {
    if (!reference_) return;
    const auto distance = MeasureFactors(*reference_, source_, keys, factors, progress_);
    result["kld_before_tuning"] = distance.kld;
    result["perplexity_before_tuning"] = distance.perplexity;
  }
  void MeasureWritten(const std::filesystem::path& directory,
                      const char* kld_name,
                      Json& result) const {
    if (!reference_) return;
    const auto distance = model::CompareWith(*reference_, Checkpoint::Open(directory), progress_);
    result[kld_name] = distance.kld;
    result["perplexity"] = distance.perplexity;
    result["perplexity_source"] = distance.reference_perplexity;
    result["held_back_tokens"] = distance.tokens;
  }

 private:
  const Checkpoint& source_;
  Progress& progress_;
  std::optional<model::ReferenceRun> reference_;
};

// Everything that tuned layers depend on but the learning rate; `settings`: the options.
Json TuneSettings(const Checkpoint& source, Json settings) {
  settings.erase("lr");
  settings["source"] = Json::object();
  for (const auto& file : source.tensors().files()) {
    settings["source"][file.filename().string()] = Sha256File(file);
  }
  return settings;
}

void CheckOptions(const FactorizeOptions& options, Objective objective) {
  KVC_CHECK(options.window >= 2 && options.calibration_tokens >= options.window,
            kUsage,
            "--calib-tokens: expected at least one window of ",
            options.window,
            " tokens, got ",
            options.calibration_tokens);
  KVC_CHECK(!NeedsCalibration(objective) || !options.calibration.empty(),
            kUsage,
            "--calib: expected a text for the objective ",
            ObjectiveName(objective),
            ", got none; name a file or use --objective weight");
  KVC_CHECK(
      !options.spread || !options.calibration.empty(),
      kUsage,
      "--calib: expected a text for --spread, which measures how much each layer matters, got ",
      "none");
  KVC_CHECK(!options.tune || !options.calibration.empty(),
            kUsage,
            "--calib: expected a text to tune on, got none");
}

void CheckSource(const ModelConfig& config) {
  KVC_CHECK(!config.thin(),
            kBadInput,
            "config.json: expected full keys, got ",
            KeyLayoutName(config.keys.layout),
            " ones; factorize the model that they come from");
}

// The request for a layout. Refuses an objective or a rank that it cannot have.
FactorRequest MakeRequest(const FactorizeOptions& options,
                          const LayoutChoice& choice,
                          const ModelConfig& config) {
  FactorRequest request;
  request.layout = choice.layout;
  request.num_groups = choice.num_groups;
  request.objective = ResolveObjective(options.objective, choice.layout);
  request.rank = options.rank;
  const int64_t width = config.num_kv_heads / choice.num_groups * config.head_width;
  (void)RankFor(request.rank, width, request.layout);
  return request;
}

struct ClosedForms {
  FactorRequest request;
  std::vector<LayerFactors> factors;
};

// The closed forms of the layout in `request`, or of the best one with --layout auto, with ranks
// spread if that is asked for. Says in `result` what was chosen.
ClosedForms MakeClosedForms(const FactorizeOptions& options,
                            const FactorRequest& request,
                            const Checkpoint& source,
                            const Windows& calibration,
                            const HeldBack& held_back,
                            Progress& progress,
                            Json& result) {
  ClosedForms forms{request, {}};
  const auto svd = Svd::Create(options.svd);
  if (options.layout == "auto") {
    LayoutComparison comparison = CompareLayouts(source,
                                                 options.rank,
                                                 options.objective,
                                                 calibration,
                                                 held_back.reference(),
                                                 *svd,
                                                 progress);
    forms.request = MakeRequest(options, comparison.choice, source.config());
    forms.factors = std::move(comparison.factors);
    result["layout_choice"] = std::move(comparison.report);
  }
  result["layout"] = LayoutText({forms.request.layout, forms.request.num_groups});
  result["objective"] = ObjectiveName(forms.request.objective);
  if (!forms.factors.empty() && !options.spread) return forms;
  std::vector<KeyStatistics> statistics;
  forms.factors = FactorLayers(
      source, forms.request, calibration, *svd, progress, options.spread ? &statistics : nullptr);
  if (options.spread) {
    result["sensitivity"] = SpreadFactors(
        source, forms.request, statistics, calibration, *svd, progress, forms.factors);
  }
  return forms;
}

}  // namespace

Json PlanFactorization(const FactorizeOptions& options) {
  const ModelConfig config = ReadModelConfig(options.model);
  CheckSource(config);
  const LayoutChoice choice = ResolveLayout(options.layout, config, options.objective);
  const Objective objective = ResolveObjective(options.objective, choice.layout);
  const int64_t width = config.num_kv_heads / choice.num_groups * config.head_width;
  const int64_t rank = RankFor(options.rank, width, choice.layout);
  const int64_t full_width = config.num_layers * config.num_kv_heads * config.head_width;
  const int64_t key_width = config.num_layers * choice.num_groups * rank;
  const std::vector<int64_t> ranks(choice.num_groups, rank);
  Json plan;
  plan["layout"] = LayoutText(choice);
  plan["objective"] = ObjectiveName(objective);
  plan["group_rank"] = rank;
  plan["group_width"] = width;
  plan["key_bytes_share"] = static_cast<double>(key_width) / static_cast<double>(full_width);
  plan["cache_elements_per_token"] = {{"full", 2 * full_width}, {"thin", full_width + key_width}};
  plan["rebuild_macs_per_token"] = CostOfLayout(config, choice.layout, ranks).rebuild_macs;
  plan["memory"] = MemoryTable(config, key_width, options.lengths);
  plan["layouts"] = LayoutTable(config, options.rank, width);
  return plan;
}

Json FactorizeModel(const FactorizeOptions& options, Progress& progress) {
  const Checkpoint source = Checkpoint::Open(options.model);
  const ModelConfig& config = source.config();
  CheckSource(config);
  const LayoutChoice choice = ResolveLayout(options.layout, config, options.objective);
  const FactorRequest request = MakeRequest(options, choice, config);
  CheckOptions(options, request.objective);
  CalibrationText text;
  if (!options.calibration.empty()) {
    text = CutText(*Tokenizer::Load(options.model), RequestText(options));
  }
  OutputDirectory output(options.output, options.force, /*resumable=*/options.tune);

  const Json described = DescribeOptions(options);
  Json result;
  const HeldBack held_back(source, text.held_back, progress);
  ClosedForms forms =
      MakeClosedForms(options, request, source, text.calibration, held_back, progress, result);
  const KeyFactors keys = MakeKeys(forms.request, forms.factors);
  result["key_bytes_share"] = KeyBytesShare(config, keys);
  result["calibration_windows"] = text.calibration.size();
  result["layers"] = DescribeLayers(forms.factors);
  if (options.tune) {
    const TuneState state(output.path(), TuneSettings(source, described));
    held_back.MeasureUntuned(keys, forms.factors, result);
    result["tuning"] =
        TuneLocally(source, keys, text.tuning, options.tuning, state, progress, forms.factors);
    state.Remove();
  }
  WriteThinCheckpoint(source, keys, forms.factors, output.path(), progress);
  held_back.MeasureWritten(
      output.path(), options.tune ? "kld_after_tuning" : "kld_before_tuning", result);
  result["options"] = described;
  Json file = result;
  file["kvc"] = Version();
  WriteJsonFile(output.path() / "factorization.json", file);
  output.Commit();
  return result;
}

}  // namespace kvc::factorize
