#include "export/bundle/export_json.h"

#include <utility>

#include "core/io/json.h"
#include "export/budget/budget_plan.h"

namespace kvc::bundle {
namespace {

Json HeadsToJson(const budget::BudgetPlan& plan) {
  Json heads = Json::array();
  for (const auto& layer : budget::HeadShares(plan)) {
    Json row = Json::array();
    for (const budget::HeadShare& head : layer) {
      row.push_back({{"tokens", head.tokens}, {"bytes", head.bytes}});
    }
    heads.push_back(std::move(row));
  }
  return heads;
}

}  // namespace

Json ToJson(const ExportPlan& plan) {
  const budget::BudgetPlan& cache = plan.cache;
  return {{"method", MethodName(cache.spec.method)},
          {"scorer", ToString(cache.spec.scorer)},
          {"dtype", ShortName(plan.weights_dtype)},
          {"cache_dtype", RowFormatName(cache.spec.key_format)},
          {"original_dtype", ShortName(cache.spec.original_dtype)},
          {"budget", ToString(plan.budget)},
          {"reference_length", cache.reference_length},
          {"budget_bytes_per_token_share", plan.BudgetShare()},
          {"cache",
           {{"full_bytes", cache.bytes.full},
            {"logical_bytes", cache.bytes.logical},
            {"allocated_bytes", cache.bytes.allocated}}},
          {"heads", HeadsToJson(cache)},
          {"solver",
           {{"objective", cache.solver.objective},
            {"bound", cache.solver.bound},
            {"gap", cache.solver.gap}}},
          {"verified_max_abs_error", nullptr}};
}

Json ToJson(const ExportPlan& plan, const ExportResult& written) {
  Json json = ToJson(plan);
  json["bundle"] = written.bundle.string();
  if (written.max_abs_error) json["verified_max_abs_error"] = *written.max_abs_error;
  return json;
}

Json ToJson(const CheckResult& checked) {
  Json json = {{"bundle", checked.bundle.string()},
               {"files", checked.files},
               {"verified_max_abs_error", nullptr}};
  if (checked.verification) {
    json["verified_max_abs_error"] = checked.verification->max_abs_error;
    json["tolerance"] = checked.verification->tolerance;
  }
  return json;
}

}  // namespace kvc::bundle
