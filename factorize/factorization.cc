#include "factorize/factorization.h"

namespace kvc::factorize {

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
  return json;
}

Json ToJson(const ControlResult& control) {
  Json json = control.training;
  json["kld"] = control.kld;
  json["perplexity"] = control.perplexity;
  return json;
}

Json ToJson(const FactorizationResult& result) {
  Json json = result.closed_forms;
  json["layout"] = LayoutText(result.layout);
  json["key_bytes_share"] = result.key_bytes_share;
  json["token_cost"] = DescribeCost(result.token_cost);
  if (result.untuned) {
    json["kld_before_tuning"] = result.untuned->kld;
    json["perplexity_before_tuning"] = result.untuned->perplexity;
  }
  if (!result.local_tuning.is_null()) json["tuning"] = result.local_tuning;
  if (!result.global_tuning.is_null()) json["global_tuning"] = result.global_tuning;
  if (result.control) json["control"] = ToJson(*result.control);
  if (result.written) {
    json[result.tuned ? "kld_after_tuning" : "kld_before_tuning"] = result.written->kld;
    json["perplexity"] = result.written->perplexity;
    json["perplexity_source"] = result.written->reference_perplexity;
    json["held_back_tokens"] = result.written->tokens;
  }
  json["options"] = result.options;
  return json;
}

}  // namespace kvc::factorize
