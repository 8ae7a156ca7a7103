#include "tools/results_json.h"

#include <cstdio>

#include "core/base/sizes.h"

namespace kvc::tools {

Json CacheToJson(const runtime::CacheCounters& cache) {
  Json json = {{"full_bytes", cache.full_bytes},
               {"logical_bytes", cache.logical_bytes},
               {"allocated_bytes", cache.allocated_bytes},
               {"peak_bytes", cache.peak_bytes}};
  if (!cache.tier_tokens.empty()) json["tier_shares"] = cache.TierShares();
  return json;
}

void PrintCache(const runtime::CacheCounters& cache) {
  std::printf("cache       %s of %s (allocated %s, peak %s)\n",
              FormatBytes(cache.logical_bytes).c_str(), FormatBytes(cache.full_bytes).c_str(),
              FormatBytes(cache.allocated_bytes).c_str(), FormatBytes(cache.peak_bytes).c_str());
}

Json CellsToJson(const std::vector<eval::NeedleCell>& cells) {
  Json array = Json::array();
  for (const eval::NeedleCell& cell : cells) {
    array.push_back({{"length", cell.length},
                     {"depth", cell.depth},
                     {"accuracy", cell.accuracy},
                     {"samples", cell.samples}});
  }
  return array;
}

Json CellsToJson(const std::vector<eval::TaskCell>& cells) {
  Json array = Json::array();
  for (const eval::TaskCell& cell : cells) {
    Json line = {{"task", cell.task}};
    if (cell.length > 0) line["length"] = cell.length;
    line["score"] = cell.score;
    line["stderr"] = cell.score_stderr;
    line["samples"] = cell.samples;
    array.push_back(std::move(line));
  }
  return array;
}

void AddDivergence(const eval::Divergence& divergence, Json& result) {
  result["kld_mean"] = divergence.kld_mean;
  result["kld_stderr"] = divergence.kld_stderr;
  result["kld_median"] = divergence.kld_median;
  result["kld_p999"] = divergence.kld_p999;
  result["same_top"] = divergence.same_top;
  result["same_top_stderr"] = divergence.same_top_stderr;
  result["perplexity"] = divergence.model.perplexity;
}

void AddWalk(const eval::Perplexity& walked, Json& result) {
  result["nll"] = walked.nll;
  result["stderr"] = walked.stderr_nll;
  result["tokens"] = walked.tokens;
  result["cache"] = CacheToJson(walked.cache.Mean());
}

void AddGates(std::span<const eval::GateResult> gates, Json& result) {
  if (gates.empty()) return;
  result["gates"] = Json::array();
  for (const eval::GateResult& gate : gates) {
    Json json = {{"name", gate.name},
                 {"limit", gate.limit},
                 {"value", gate.value ? Json(*gate.value) : Json()},
                 {"passed", gate.passed}};
    if (!gate.line.empty()) json["line"] = gate.line;
    if (!gate.reason.empty()) json["reason"] = gate.reason;
    result["gates"].push_back(std::move(json));
  }
  result["gate"] = eval::AllPassed(gates) ? "passed" : "failed";
}

void PrintGates(std::span<const eval::GateResult> gates) {
  for (const eval::GateResult& gate : gates) {
    const std::string line = gate.line.empty() ? "" : " (" + gate.line + ")";
    std::printf("gate        %s %s: ", gate.name.c_str(), gate.passed ? "passed" : "FAILED");
    if (gate.value) {
      std::printf("%.5g, limit %.5g%s\n", *gate.value, gate.limit, line.c_str());
    } else {
      std::printf("limit %.5g%s, %s\n", gate.limit, line.c_str(), gate.reason.c_str());
    }
  }
}

}  // namespace kvc::tools
