#include "factorize/factorization.h"

#include <numeric>
#include <utility>

namespace kvc::factorize {
namespace {

Json DescribeLayers(const std::vector<LayerFit>& fits) {
  Json layers = Json::array();
  for (const LayerFit& layer : fits) {
    double mean = 0.0;
    for (const double error : layer.head_logit_errors) mean += error;
    Json entry;
    entry["rank"] = std::accumulate(layer.group_ranks.begin(), layer.group_ranks.end(), int64_t{0});
    entry["logit_error"] = mean / static_cast<double>(layer.head_logit_errors.size());
    entry["group_ranks"] = layer.group_ranks;
    entry["head_logit_errors"] = layer.head_logit_errors;
    entry["spectra"] = layer.spectra;
    layers.push_back(std::move(entry));
  }
  return layers;
}

Json DescribeClosedForms(const FactorizationResult& result) {
  const ClosedForms& forms = *result.closed_forms;
  Json json;
  if (forms.layout_choice) json["layout_choice"] = ToJson(*forms.layout_choice);
  json["objective"] = result.objective;
  if (forms.sensitivity) json["sensitivity"] = *forms.sensitivity;
  json["calibration_windows"] = forms.calibration_windows;
  json["layers"] = DescribeLayers(forms.layers);
  return json;
}

}  // namespace

Json ToJson(const FactorizationPlan& plan) {
  Json json;
  json["layout"] = LayoutText(plan.layout);
  json["objective"] = ObjectiveName(plan.objective);
  json["group_rank"] = plan.group_rank;
  json["group_width"] = plan.group_width;
  json["key_bytes_share"] = plan.key_bytes_share;
  json["cache_elements_per_token"] = {{"full", plan.full_elements}, {"thin", plan.thin_elements}};
  json["rebuild_macs_per_token"] = plan.rebuild_macs;
  json["memory"] = ToJson(plan.memory);
  json["layouts"] = Json::array();
  for (const LayoutRow& row : plan.layouts) json["layouts"].push_back(ToJson(row));
  json["rank_cost"] = ToJson(plan.rank_cost);
  return json;
}

Json ToJson(const ControlResult& control) {
  Json json = control.training ? ToJson(*control.training)
                               : Json{{"loss", OutputLossName(control.loss)}, {"steps", 0}};
  json["kld"] = control.kld;
  json["perplexity"] = control.perplexity;
  return json;
}

Json ToJson(const FactorizationResult& result) {
  Json json = result.closed_forms ? DescribeClosedForms(result) : result.inherited;
  json["layout"] = LayoutText(result.layout);
  json["key_bytes_share"] = result.key_bytes_share;
  json["token_cost"] = DescribeCost(result.token_cost);
  if (result.untuned) {
    json["kld_before_tuning"] = result.untuned->kld;
    json["perplexity_before_tuning"] = result.untuned->perplexity;
  }
  for (const LayerTuning& layer : result.local_tuning) json["tuning"].push_back(ToJson(layer));
  if (result.global_tuning) json["global_tuning"] = ToJson(*result.global_tuning);
  if (result.control) json["control"] = ToJson(*result.control);
  if (result.written) {
    json[result.options.tunes() ? "kld_after_tuning" : "kld_before_tuning"] = result.written->kld;
    json["perplexity"] = result.written->perplexity;
    json["perplexity_source"] = result.written->reference_perplexity;
    json["held_back_tokens"] = result.written->tokens;
  }
  json["options"] = ToJson(result.options, result.calibration);
  return json;
}

}  // namespace kvc::factorize
