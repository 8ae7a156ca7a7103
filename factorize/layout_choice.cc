#include "factorize/layout_choice.h"

#include <algorithm>
#include <cstdio>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/io/json.h"
#include "factorize/closed_forms.h"
#include "factorize/held_back.h"
#include "factorize/memory_table.h"

namespace kvc::factorize {
namespace {

struct Candidate {
  FactorRequest request;
  std::vector<LayerFactors> factors;
  MeasuredLayout measured;

  // Returns the multiply-adds of one cached token.
  [[nodiscard]] int64_t Macs() const {
    return measured.cost.rebuild_macs + measured.cost.score_macs;
  }
};

// Returns every layout of the family that can have the objective.
std::vector<Candidate> ListCandidates(const ModelConfig& config,
                                      const RankRequest& rank,
                                      Objective objective) {
  std::vector<LayoutChoice> choices;
  for (int64_t n = 1; n <= config.num_kv_heads; ++n) {
    if (config.num_kv_heads % n == 0) choices.push_back({KeyLayout::kLatent, n});
  }
  for (const KeyLayout layout : {KeyLayout::kAbsorb, KeyLayout::kPostRope, KeyLayout::kRopePairs}) {
    choices.push_back({layout, config.num_kv_heads});
  }
  std::vector<Candidate> candidates;
  for (const LayoutChoice& choice : choices) {
    if (!LayoutObstacle(config, choice.layout).empty()) continue;
    if (!CanHaveObjective(choice.layout, objective)) continue;
    Candidate& candidate = candidates.emplace_back();
    candidate.measured.choice = choice;
    candidate.request.layout = choice.layout;
    candidate.request.num_groups = choice.num_groups;
    candidate.request.objective =
        ResolveObjective(objective, choice.layout, GroupWidth(config, choice.num_groups));
    candidate.request.rank = rank;
  }
  return candidates;
}

void Measure(const Checkpoint& source,
             const model::ReferenceRun& reference,
             Progress& progress,
             Candidate& candidate) {
  const ModelConfig& config = source.config();
  const KeyFactors keys = MakeKeys(candidate.request, candidate.factors);
  const auto distance = MeasureFactors(reference, source, keys, candidate.factors, progress);
  int64_t width = 0;
  for (const int64_t group_rank : keys.ranks[0]) width += group_rank;
  MeasuredLayout& measured = candidate.measured;
  measured.objective = candidate.request.objective;
  measured.rank = keys.ranks[0][0];
  measured.key_bytes_share =
      static_cast<double>(width) / static_cast<double>(config.num_kv_heads * config.head_width);
  measured.kld = distance.kld;
  measured.perplexity = distance.perplexity;
  measured.cost = CostOfLayout(config, keys.layout, keys.ranks[0]);
}

std::string Kld(const Candidate& candidate) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4f", candidate.measured.kld);
  return LayoutText(candidate.measured.choice) + " (KLD " + text + ", " +
         std::to_string(candidate.Macs()) + " multiply-adds for a cached token)";
}

// Returns the reason for a choice. The candidates, at least two, are in the order of their KLD.
std::string Reason(const std::vector<Candidate>& candidates, const Candidate& chosen) {
  const Candidate& best = candidates.front();
  if (&chosen != &best) {
    return Kld(chosen) + " costs less at decode than " + Kld(best) +
           ", whose quality is better by 10 % at most";
  }
  return Kld(best) + " loses least; next is " + Kld(candidates[1]);
}

}  // namespace

LayoutRequest ParseLayout(const std::string& text) {
  if (text == "auto") return {};
  if (text == "latent:heads") return {false, KeyLayout::kLatent, 0};
  if (text.starts_with("latent:")) {
    const int64_t count = ParseLength(text.substr(7), "--layout latent:N");
    KVC_CHECK(count >= 1, kUsage, "--layout latent:N: expected 1 or more, got {}", count);
    return {false, KeyLayout::kLatent, count};
  }
  KVC_CHECK(text == "absorb" || text == "post-rope" || text == "rope-pairs", kUsage,
            "--layout: expected auto, absorb, latent:N, latent:heads, post-rope or rope-pairs, got "
            "\"{}\"",
            text);
  return {false, KeyLayoutFromName(text), 0};
}

std::string ToText(const LayoutRequest& request) {
  if (request.automatic) return "auto";
  const std::string name(KeyLayoutName(request.layout));
  if (request.layout != KeyLayout::kLatent) return name;
  return name + ":" + (request.num_groups == 0 ? "heads" : std::to_string(request.num_groups));
}

LayoutChoice ResolveLayout(const LayoutRequest& request,
                           const ModelConfig& config,
                           Objective objective) {
  if (request.automatic) {
    if (!config.has_rope) return {KeyLayout::kAbsorb, config.num_kv_heads};
    const bool latent = LayoutObstacle(config, KeyLayout::kLatent).empty() &&
                        CanHaveObjective(KeyLayout::kLatent, objective);
    return latent ? LayoutChoice{KeyLayout::kLatent, 1}
                  : LayoutChoice{KeyLayout::kPostRope, config.num_kv_heads};
  }
  const std::string_view obstacle = LayoutObstacle(config, request.layout);
  KVC_CHECK(obstacle.empty(), kUsage, "--layout: expected {} for {}, got {}: {}",
            PossibleLayouts(config), FamilyName(config.family), ToText(request), obstacle);
  if (request.num_groups == 0) return {request.layout, config.num_kv_heads};
  KVC_CHECK(config.num_kv_heads % request.num_groups == 0, kUsage,
            "--layout latent:N: expected a divisor of the {} kv heads, got {}", config.num_kv_heads,
            request.num_groups);
  return {KeyLayout::kLatent, request.num_groups};
}

std::string LayoutText(const LayoutChoice& choice) {
  const std::string name(KeyLayoutName(choice.layout));
  return choice.layout == KeyLayout::kLatent ? name + ":" + std::to_string(choice.num_groups)
                                             : name;
}

Json ToJson(const LayoutReport& report) {
  Json json;
  json["candidates"] = Json::array();
  for (const MeasuredLayout& candidate : report.candidates) {
    Json row = {{"layout", LayoutText(candidate.choice)},
                {"objective", ObjectiveName(candidate.objective)},
                {"rank", candidate.rank},
                {"key_bytes_share", candidate.key_bytes_share},
                {"kld", candidate.kld},
                {"perplexity", candidate.perplexity}};
    row.update(DescribeCost(candidate.cost));
    json["candidates"].push_back(std::move(row));
  }
  json["reason"] = report.reason;
  return json;
}

LayoutComparison CompareLayouts(const Checkpoint& source,
                                const RankRequest& rank,
                                Objective objective,
                                const Windows& calibration,
                                const model::ReferenceRun* reference,
                                const linalg::Svd& svd,
                                Progress& progress,
                                Ranks& ranks) {
  std::vector<Candidate> candidates = ListCandidates(source.config(), rank, objective);
  KVC_CHECK(!candidates.empty(), kUsage,
            "--objective: expected one that a layout of {} can have ({}), got {}",
            FamilyName(source.config().family), PossibleLayouts(source.config()),
            ObjectiveName(objective));
  LayoutComparison comparison;
  comparison.choice = candidates.front().measured.choice;
  if (candidates.size() == 1) {
    comparison.report.reason = "the only layout of " +
                               std::string(FamilyName(source.config().family)) +
                               " with this objective";
    return comparison;
  }
  if (reference == nullptr || !rank.is_share) {
    comparison.report.reason =
        reference == nullptr ? "no text is held back to compare layouts on; loses least on SmolLM2"
                             : "a rank in dimensions does not compare layouts; use a share";
    return comparison;
  }
  std::vector<FactorRequest> requests;
  for (const Candidate& candidate : candidates) requests.push_back(candidate.request);
  auto factors = FactorEach(source, requests, calibration, svd, progress, ranks);
  for (size_t i = 0; i < candidates.size(); ++i) {
    candidates[i].factors = std::move(factors[i]);
    Measure(source, *reference, progress, candidates[i]);
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const auto& a, const auto& b) { return a.measured.kld < b.measured.kld; });
  const double equal = candidates.front().measured.kld * kEqualKldRatio + kEqualKldMargin;
  Candidate* chosen = &candidates.front();
  for (Candidate& candidate : candidates) {
    if (candidate.measured.kld <= equal && candidate.Macs() < chosen->Macs()) chosen = &candidate;
    comparison.report.candidates.push_back(candidate.measured);
  }
  comparison.choice = chosen->measured.choice;
  comparison.report.reason = Reason(candidates, *chosen);
  comparison.factors = std::move(chosen->factors);
  return comparison;
}

}  // namespace kvc::factorize
