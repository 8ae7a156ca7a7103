#include "pipeline/profile_summary.h"

#include "core/io/json.h"

namespace kvc::pipeline {
namespace {

LossSummary Summarize(const ProfileData& profile, const ScorerSpec* scorer) {
  LossSummary summary;
  summary.name = scorer == nullptr ? "oracle" : ToString(*scorer);
  for (size_t i = 0; i < kKeptShares.size(); ++i) {
    summary.loss[i] = profile::MeanLoss(profile, scorer, kKeptShares[i].share);
    const double least = profile::MeanLoss(profile, nullptr, kKeptShares[i].share);
    if (least > 0.0) summary.ratio[i] = summary.loss[i] / least;
  }
  return summary;
}

Json LossJson(const LossSummary& summary) {
  Json json = Json::object();
  for (size_t i = 0; i < kKeptShares.size(); ++i) json[kKeptShares[i].name] = summary.loss[i];
  return json;
}

Json RatioJson(const LossSummary& summary) {
  Json json = Json::object();
  for (size_t i = 0; i < kKeptShares.size(); ++i) {
    json[kKeptShares[i].name] = summary.ratio[i] ? Json(*summary.ratio[i]) : Json();
  }
  return json;
}

}  // namespace

std::vector<LossSummary> SummarizeLosses(const ProfileData& profile,
                                         const profile::ProfileOptions& options) {
  std::vector<LossSummary> summaries;
  for (const ScorerSpec& spec : options.scorers) summaries.push_back(Summarize(profile, &spec));
  summaries.push_back(Summarize(profile, nullptr));
  return summaries;
}

Json ToJson(const profile::ProfilePlan& plan) {
  return {{"windows", plan.windows},
          {"tokens", plan.tokens},
          {"ranks", plan.ranks},
          {"hidden_bytes", plan.hidden_bytes},
          {"memory_bytes", plan.memory_bytes}};
}

Json ToJson(const ProfileResult& result, const profile::ProfileOptions& options) {
  const ProfileData& data = result.data;
  const std::vector<LossSummary> losses = SummarizeLosses(data, options);
  Json json = ToJson(result.plan);
  json["scorers"] = Json::object();
  for (size_t i = 0; i + 1 < losses.size(); ++i) {
    json["scorers"][losses[i].name] = {{"loss", LossJson(losses[i])},
                                       {"ratio", RatioJson(losses[i])}};
  }
  json["oracle"] = LossJson(losses.back());
  json["importance"] = {{"method", data.importance_method},
                        {"tests", data.importance_tests},
                        {"needle_tests", data.needle_tests},
                        {"needle_passed", data.needle_passed}};
  return json;
}

}  // namespace kvc::pipeline
