#include "tools/profile_text.h"

#include <cstdio>
#include <string>

#include "core/base/sizes.h"
#include "core/io/json.h"

namespace kvc::tools {
namespace {

// Budgets at which the result is summarised.
constexpr struct {
  const char* name;
  double share;
} kShares[] = {{"50%", 0.5}, {"25%", 0.25}, {"12.5%", 0.125}};

// Returns the loss at each share, and its ratio to the oracle's own.
Json LossSummary(const ProfileData& profile, const ScorerSpec* scorer) {
  Json loss = Json::object();
  Json ratio = Json::object();
  for (const auto& [name, share] : kShares) {
    const double lost = profile::MeanLoss(profile, scorer, share);
    const double least = profile::MeanLoss(profile, nullptr, share);
    loss[name] = lost;
    ratio[name] = least > 0.0 ? Json(lost / least) : Json();
  }
  return {{"loss", loss}, {"ratio", ratio}};
}

void PrintLosses(const char* name, const Json& loss, const Json* ratio) {
  std::printf("%-20s", name);
  for (const auto& share : kShares) {
    std::printf("  %7.2f %%", 100.0 * loss[share.name].get<double>());
    if (ratio != nullptr && (*ratio)[share.name].is_number()) {
      std::printf(" (%4.2fx)", (*ratio)[share.name].get<double>());
    }
  }
  std::printf("\n");
}

}  // namespace

Json ToJson(const profile::ProfilePlan& plan) {
  return {{"windows", plan.windows},
          {"tokens", plan.tokens},
          {"hidden_bytes", plan.hidden_bytes},
          {"memory_bytes", plan.memory_bytes}};
}

Json ToJson(const pipeline::ProfileResult& result, const profile::ProfileOptions& options) {
  const ProfileData& data = result.data;
  Json json = ToJson(result.plan);
  json["scorers"] = Json::object();
  for (const ScorerSpec& spec : options.scorers) {
    json["scorers"][ToString(spec)] = LossSummary(data, &spec);
  }
  json["oracle"] = LossSummary(data, nullptr)["loss"];
  json["importance"] = {{"method", data.importance_method},
                        {"tests", data.importance_tests},
                        {"needle_tests", data.needle_tests},
                        {"needle_passed", data.needle_passed}};
  return json;
}

void PrintProfile(const Json& result) {
  std::printf("windows       %lld, %lld tokens\n", result["windows"].get<long long>(),
              result["tokens"].get<long long>());
  std::printf("hidden states %s, memory about %s beside the mapped weights\n",
              FormatBytes(result["hidden_bytes"].get<int64_t>()).c_str(),
              FormatBytes(result["memory_bytes"].get<int64_t>()).c_str());
  if (result.contains("dry_run")) return;
  std::printf(
      "\nOracle importance lost when every head keeps 50 %%, 25 %%, 12.5 %% of its tokens,\n"
      "and times what the oracle's own choice loses:\n");
  for (const auto& [name, scorer] : result["scorers"].items()) {
    PrintLosses(name.c_str(), scorer["loss"], &scorer["ratio"]);
  }
  PrintLosses("oracle", result["oracle"], nullptr);
  const Json& importance = result["importance"];
  std::printf("\nHead importance: %s", importance["method"].get<std::string>().c_str());
  if (importance["needle_tests"].get<int64_t>() > 0) {
    std::printf(", %lld of %lld needle questions answered",
                importance["needle_passed"].get<long long>(),
                importance["needle_tests"].get<long long>());
  }
  std::printf("\n");
}

}  // namespace kvc::tools
