#include "pipeline/choose/choose_composition.h"

#include <algorithm>
#include <utility>

#include "core/base/error.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json.h"
#include "core/io/shared_output.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/inputs.h"
#include "export/bundle/export_bundle.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

CompareTasks MakeTasks(const ChooseRequest& request, const Tokenizer& tokenizer) {
  KVC_CHECK(!request.text.empty(), kUsage,
            "--method auto: expected --text FILE, held back from calibration, got none");
  CompareTasks tasks;
  tasks.walk.context = request.context;
  tasks.walk.decode = request.decode;
  tasks.walk.samples = request.samples;
  tasks.samples = eval::CutSamples(tokenizer, eval::ReadAll(request.text), tasks.walk);
  if (request.haystack.empty()) return tasks;
  tasks.needle.lengths = {request.context};
  tasks.needle.depths = {0.1, 0.3, 0.5, 0.7, 0.9};
  tasks.needle.samples = request.needles;
  tasks.needle.seed = request.seed;
  tasks.cells = eval::PlanNeedles(tokenizer, eval::ReadHaystack(request.haystack), tasks.needle);
  return tasks;
}

// Returns a name for each candidate's bundle: its folder's, numbered if two have the same.
std::vector<std::string> BundleNames(const std::vector<Candidate>& candidates) {
  std::vector<std::string> names;
  for (const Candidate& candidate : candidates) {
    std::string name = fs::canonical(candidate.model).filename().string();
    if (std::ranges::find(names, name) != names.end()) name += "-" + std::to_string(names.size());
    names.push_back(std::move(name));
  }
  return names;
}

// Default of "@TIERS", the profile's tiers.
constexpr const char* kDefaultTiers = "@0,1/8,1/4,1";
std::string TiersOf(const ProfileData& profile) {
  const auto tiers = profile.options.find("tiers");
  return tiers == profile.options.end() ? kDefaultTiers : "@" + tiers->get<std::string>();
}

std::vector<budget::NamedPolicy> PoliciesOf(const Candidate& candidate,
                                            const ChooseRequest& request) {
  if (!request.policies.empty()) return request.policies;
  if (candidate.profile.empty()) {
    const ModelConfig config = ReadModelConfig(candidate.model);
    return DefaultPolicies(nullptr, KeysBehindRotation(config.keys.layout));
  }
  const ProfileData profile = ReadProfile(candidate.profile);
  return DefaultPolicies(&profile);
}

// Writes the full-cache bundle of a checkpoint, unverified.
void ExportFull(const Candidate& candidate,
                const ChooseRequest& request,
                const fs::path& directory,
                Progress& progress) {
  bundle::ExportOptions options;
  options.model = candidate.model;
  options.output = directory;
  options.method = Method::kFull;
  options.weights_dtype = request.weights_dtype;
  options.cache_format = request.cache_format;
  options.threads = request.threads;
  options.seed = request.seed;
  options.no_verify = true;
  (void)bundle::ExportBundle(bundle::PlanExport(options), options, nullptr, progress);
}

// Returns every third window and one needle at each depth.
CompareTasks FirstRound(const CompareTasks& tasks) {
  CompareTasks first = tasks;
  first.samples.clear();
  for (size_t i = 0; i < tasks.samples.size(); i += 3) first.samples.push_back(tasks.samples[i]);
  for (eval::NeedleCell& cell : first.cells) {
    cell.samples = std::min<int64_t>(cell.samples, 1);
    cell.prompts.resize(static_cast<size_t>(cell.samples));
  }
  return first;
}

// Position of a line's bundle and policy in `bases`.
struct LinePosition {
  size_t base = 0;
  size_t policy = 0;
};
LinePosition PositionOf(const ComparisonLine& line,
                        const std::vector<std::string>& names,
                        const std::vector<PolicyBase>& bases) {
  LinePosition position;
  position.base = static_cast<size_t>(std::ranges::find(names, line.bundle) - names.begin());
  KVC_CHECK(position.base < bases.size(), kInternal, "comparison: unknown bundle {}", line.bundle);
  const auto& policies = bases[position.base].policies;
  position.policy = static_cast<size_t>(
      std::ranges::find(policies, line.policy, &budget::NamedPolicy::name) - policies.begin());
  KVC_CHECK(position.policy < policies.size(), kInternal, "comparison: unknown policy {}",
            line.policy);
  return position;
}

// Keeps the policies of the kFinalists best `lines` in `bases` and returns the other lines.
std::vector<ComparisonLine> KeepFinalists(const std::vector<ComparisonLine>& lines,
                                          double least_needles,
                                          const std::vector<std::string>& names,
                                          std::vector<PolicyBase>& bases) {
  const std::vector<size_t> order = RankLines(lines, least_needles);
  const std::vector<PolicyBase> all = bases;
  for (PolicyBase& base : bases) base.policies.clear();
  std::vector<ComparisonLine> screened;
  for (size_t i = 0; i < order.size(); ++i) {
    const ComparisonLine& line = lines[order[i]];
    if (i >= kFinalists) {
      screened.push_back(line);
      continue;
    }
    const LinePosition position = PositionOf(line, names, all);
    bases[position.base].policies.push_back(all[position.base].policies[position.policy]);
  }
  return screened;
}

}  // namespace

std::vector<budget::NamedPolicy> DefaultPolicies(const ProfileData* profile, bool behind_rotation) {
  std::vector<budget::NamedPolicy> policies;
  const auto add = [&](const std::string& text) { policies.push_back(budget::ParsePolicy(text)); };
  if (profile == nullptr) {
    for (const char* text :
         {"streaming", "uniform/snapkv", "uniform/output-error:keydiff=0.3", "pyramid/snapkv"}) {
      add(text);
    }
    if (!behind_rotation) add("uniform/output-error:prompt=1024");
    return policies;
  }
  for (const auto& [scorer, curve] : profile->curves) {
    const std::string name = ToString(scorer);
    const bool mixed = profile->mixed_curves.contains(scorer);
    const std::string tiers = mixed ? TiersOf(*profile) : "";
    add("uniform/" + name + tiers);
    add("lukv/" + name);
    if (profile->error_curves.contains(scorer)) add("lukv/" + name + "/output-error");
    if (mixed) {
      const std::string own = tiers == kDefaultTiers ? "" : tiers;
      add("lukv-mixed/" + name + "/importance" + own);
      add("lukv-mixed/" + name + "/output-error" + own);
    }
    if (!profile->importance.empty()) add("headkv/" + name + tiers);
  }
  return policies;
}

std::vector<size_t> RankLines(std::span<const ComparisonLine> lines, double least_needles) {
  const auto found = [&](size_t i) { return lines[i].needles ? lines[i].needles->found : 0; };
  int64_t most = 0;
  for (size_t i = 1; i < lines.size(); ++i) most = std::max(most, found(i));
  const double wanted = least_needles * static_cast<double>(found(0));
  const double least = std::min(wanted, static_cast<double>(most));
  std::vector<size_t> order;
  for (size_t i = 1; i < lines.size(); ++i) {
    KVC_CHECK(lines[i].text, kInternal, "{}: expected a walk through text to rank it by, got none",
              lines[i].name);
    order.push_back(i);
  }
  const auto key = [&](size_t i) {
    const eval::Divergence& divergence = lines[i].text->divergence;
    return std::pair(static_cast<double>(found(i)) < least,
                     divergence.kld_mean + divergence.kld_stderr);
  };
  std::ranges::stable_sort(order, {}, key);
  return order;
}

Choice ChooseComposition(const ChooseRequest& request,
                         ThreadPool& pool,
                         Progress& progress,
                         Ranks& ranks) {
  const auto tokenizer = Tokenizer::Load(request.candidates[0].model);
  const CompareTasks tasks = MakeTasks(request, *tokenizer);
  const std::vector<std::string> names = BundleNames(request.candidates);
  const SharedOutput scratch(ranks, request.scratch, {}, false);  // never committed: it goes
  CompareRequest compare;
  size_t count = 0;
  for (size_t c = 0; c < names.size(); ++c) {
    const Candidate& candidate = request.candidates[c];
    compare.bases.push_back({scratch.path() / names[c], PoliciesOf(candidate, request)});
    if (ranks.Owns(static_cast<int64_t>(c))) {
      ExportFull(candidate, request, compare.bases.back().bundle, progress);
    }
    if (!candidate.profile.empty()) compare.profiles.push_back(candidate.profile);
    count += compare.bases.back().policies.size();
  }
  ranks.Barrier();  // all are written
  compare.reference = compare.bases[0].bundle;
  compare.budgets = {request.budget};
  compare.sinks = request.sinks;
  compare.window = request.window;
  Choice choice;
  if (count > kFinalists) {
    const Comparison first =
        RunComparison(compare, FirstRound(tasks), *tokenizer, {}, pool, progress, ranks);
    choice.screened = KeepFinalists(first.lines, request.least_needles, names, compare.bases);
  }
  choice.comparison = RunComparison(compare, tasks, *tokenizer, {}, pool, progress, ranks);
  const std::vector<ComparisonLine>& lines = choice.comparison.lines;
  const ComparisonLine& best = lines[RankLines(lines, request.least_needles)[0]];
  const LinePosition position = PositionOf(best, names, compare.bases);
  choice.line = best.name;
  choice.policy = compare.bases[position.base].policies[position.policy];
  choice.candidate = request.candidates[position.base];
  ranks.Barrier();  // no rank reads the bundles any more
  return choice;
}

}  // namespace kvc::choose
