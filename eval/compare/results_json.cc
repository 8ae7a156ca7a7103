#include "eval/compare/results_json.h"

#include "core/io/json.h"

namespace kvc::eval {

Json CacheToJson(const runtime::CacheCounters& cache) {
  Json json = {{"full_bytes", cache.full_bytes},
               {"logical_bytes", cache.logical_bytes},
               {"allocated_bytes", cache.allocated_bytes},
               {"peak_bytes", cache.peak_bytes}};
  if (!cache.tier_tokens.empty()) json["tier_shares"] = cache.TierShares();
  return json;
}

Json CellsToJson(const std::vector<NeedleCell>& cells) {
  Json array = Json::array();
  for (const NeedleCell& cell : cells) {
    array.push_back({{"length", cell.length},
                     {"depth", cell.depth},
                     {"accuracy", cell.accuracy},
                     {"samples", cell.samples}});
  }
  return array;
}

Json CellsToJson(const std::vector<TaskCell>& cells) {
  Json array = Json::array();
  for (const TaskCell& cell : cells) {
    Json line = {{"task", cell.task}};
    if (cell.length > 0) line["length"] = cell.length;
    line["score"] = cell.score;
    line["stderr"] = cell.score_stderr;
    line["samples"] = cell.samples;
    array.push_back(std::move(line));
  }
  return array;
}

void AddDivergence(const Divergence& divergence, Json& result) {
  result["kld_mean"] = divergence.kld_mean;
  result["kld_stderr"] = divergence.kld_stderr;
  result["kld_median"] = divergence.kld_median;
  result["kld_p999"] = divergence.kld_p999;
  result["same_top"] = divergence.same_top;
  result["same_top_stderr"] = divergence.same_top_stderr;
  result["perplexity"] = divergence.model.perplexity;
}

void AddWalk(const Perplexity& walked, Json& result) {
  result["nll"] = walked.nll;
  result["stderr"] = walked.stderr_nll;
  result["tokens"] = walked.tokens;
  result["cache"] = CacheToJson(walked.cache.Mean());
}

void AddGates(std::span<const GateResult> gates, Json& result) {
  if (gates.empty()) return;
  result["gates"] = Json::array();
  for (const GateResult& gate : gates) {
    Json json = {{"name", gate.name},
                 {"limit", gate.limit},
                 {"value", gate.value ? Json(*gate.value) : Json()},
                 {"passed", gate.passed}};
    if (!gate.line.empty()) json["line"] = gate.line;
    if (!gate.reason.empty()) json["reason"] = gate.reason;
    result["gates"].push_back(std::move(json));
  }
  result["gate"] = AllPassed(gates) ? "passed" : "failed";
}

}  // namespace kvc::eval
