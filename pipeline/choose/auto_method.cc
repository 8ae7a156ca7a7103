#include "pipeline/choose/auto_method.h"

#include <algorithm>
#include <filesystem>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/cache/scorer_spec.h"
#include "core/checkpoint/model_config.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/requests.h"
#include "pipeline/choose/compare_run.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

CompareTasks MakeTasks(const AutoRequest& request, const Tokenizer& tokenizer) {
  const AutoOptions& options = request.options;
  KVC_CHECK(!options.text.empty(), kUsage,
            "--method auto: expected --text FILE, held back from calibration, got none");
  CompareTasks tasks;
  tasks.walk.context = ParseLength(options.context, "--context");
  tasks.walk.decode = ParseLength(options.decode, "--decode");
  tasks.walk.samples = options.samples;
  tasks.samples = eval::CutSamples(tokenizer, eval::ReadAll(options.text), tasks.walk);
  if (options.haystack.empty()) return tasks;
  eval::NeedleArguments needle;
  needle.haystack = options.haystack;
  needle.lengths = {options.context};
  needle.options.depths = {0.1, 0.3, 0.5, 0.7, 0.9};
  needle.options.samples = options.needles;
  tasks.needle = eval::ToNeedleOptions(needle, tasks.walk.policy, request.seed);
  tasks.cells = eval::PlanCells(needle, tasks.needle, tokenizer);
  return tasks;
}

// A name for each candidate's bundle: its folder's, numbered where two have the same.
std::vector<std::string> BundleNames(const std::vector<AutoCandidate>& candidates) {
  std::vector<std::string> names;
  for (const AutoCandidate& candidate : candidates) {
    std::string name = fs::canonical(candidate.model).filename().string();
    if (std::ranges::find(names, name) != names.end()) name += "-" + std::to_string(names.size());
    names.push_back(std::move(name));
  }
  return names;
}

// "@TIERS", the profile's.
constexpr const char* kDefaultTiers = "@0,1/8,1/4,1";
std::string TiersOf(const ProfileData& profile) {
  const auto tiers = profile.options.find("tiers");
  return tiers == profile.options.end() ? kDefaultTiers : "@" + tiers->get<std::string>();
}

std::vector<std::string> PoliciesOf(const AutoCandidate& candidate, const AutoOptions& options) {
  if (!options.policies.empty()) return options.policies;
  if (candidate.profile.empty()) {
    const ModelConfig config = ReadModelConfig(candidate.model);
    return DefaultPolicies(nullptr, KeysBehindRotation(config.keys.layout));
  }
  const ProfileData profile = ReadProfile(candidate.profile);
  return DefaultPolicies(&profile);
}

// Every third window and one needle at each depth.
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

// Leaves the kFinalists best of `lines` in `compare` and returns the others.
Json KeepFinalists(const Json& lines,
                   double least_needles,
                   const std::vector<std::string>& names,
                   CompareRequest& compare) {
  const std::vector<size_t> order = RankLines(lines, least_needles);
  for (auto& policies : compare.base_policies) policies.clear();
  Json screened = Json::array();
  for (size_t i = 0; i < order.size(); ++i) {
    const Json& line = lines[order[i]];
    if (i >= kFinalists) {
      screened.push_back(line);
      continue;
    }
    const size_t base = std::ranges::find(names, line["bundle"].get<std::string>()) - names.begin();
    compare.base_policies[base].push_back(line["policy"]);
  }
  return screened;
}

}  // namespace

AutoCandidate ParseCandidate(const std::string& text) {
  const size_t comma = text.find(',');
  AutoCandidate candidate{text.substr(0, comma), ""};
  if (comma != std::string::npos) candidate.profile = text.substr(comma + 1);
  KVC_CHECK(
      fs::is_directory(candidate.model), kUsage,
      "--candidate: expected CHECKPOINT[,PROFILE], got {}, which names no checkpoint directory",
      text);
  return candidate;
}

std::vector<std::string> DefaultPolicies(const ProfileData* profile, bool behind_rotation) {
  std::vector<std::string> policies;
  if (profile == nullptr) {
    policies = {"streaming", "uniform/snapkv", "uniform/output-error:keydiff=0.3",
                "pyramid/snapkv"};
    if (!behind_rotation) policies.push_back("uniform/output-error:prompt=1024");
    return policies;
  }
  for (const auto& [scorer, curve] : profile->curves) {
    const std::string name = ToString(scorer);
    const bool mixed = profile->mixed_curves.contains(scorer);
    const std::string tiers = mixed ? TiersOf(*profile) : "";
    policies.push_back("uniform/" + name + tiers);
    policies.push_back("lukv/" + name);
    if (profile->error_curves.contains(scorer))
      policies.push_back("lukv/" + name + "/output-error");
    if (mixed) {
      const std::string own = tiers == kDefaultTiers ? "" : tiers;
      policies.push_back("lukv-mixed/" + name + own);
      policies.push_back("lukv-mixed/" + name + "/output-error" + own);
    }
    if (!profile->importance.empty()) policies.push_back("headkv/" + name + tiers);
  }
  return policies;
}

std::vector<size_t> RankLines(const Json& lines, double least_needles) {
  const auto found = [&](size_t i) { return lines[i].value("needles_found", int64_t{0}); };
  int64_t most = 0;
  for (size_t i = 1; i < lines.size(); ++i) most = std::max(most, found(i));
  const double wanted = least_needles * static_cast<double>(found(0));
  const double least = std::min(wanted, static_cast<double>(most));
  std::vector<size_t> order;
  for (size_t i = 1; i < lines.size(); ++i) order.push_back(i);
  const auto key = [&](size_t i) {
    return std::pair(static_cast<double>(found(i)) < least, lines[i]["kld_mean"].get<double>());
  };
  std::ranges::stable_sort(order, {}, key);
  return order;
}

AutoChoice ChooseComposition(const AutoRequest& request, ThreadPool& pool, Progress& progress) {
  const auto tokenizer = Tokenizer::Load(request.candidates[0].model);
  const CompareTasks tasks = MakeTasks(request, *tokenizer);
  const std::vector<std::string> names = BundleNames(request.candidates);
  const OutputDirectory scratch(request.scratch, {}, false);  // never committed: it goes at the end
  CompareRequest compare;
  size_t count = 0;
  for (size_t c = 0; c < names.size(); ++c) {
    compare.bases.push_back((scratch.path() / names[c]).string());
    request.export_full(request.candidates[c], compare.bases.back());
    const std::string& profile = request.candidates[c].profile;
    if (!profile.empty()) compare.profiles.push_back(profile);
    compare.base_policies.push_back(PoliciesOf(request.candidates[c], request.options));
    count += compare.base_policies.back().size();
  }
  compare.reference = compare.bases[0];
  compare.budgets = {request.budget};
  compare.sinks = request.sinks;
  compare.window = request.window;
  const double least_needles = request.options.least_needles;
  AutoChoice choice;
  Json screened = Json::array();
  if (count > kFinalists) {
    const Json first = RunComparison(compare, FirstRound(tasks), *tokenizer, {}, pool, progress);
    screened = KeepFinalists(first["lines"], least_needles, names, compare);
  }
  choice.table = RunComparison(compare, tasks, *tokenizer, {}, pool, progress);
  choice.table["screened"] = std::move(screened);
  const Json& lines = choice.table["lines"];
  const size_t line = RankLines(lines, least_needles)[0];
  choice.policy = lines[line]["policy"];
  const std::string base = lines[line]["bundle"];
  choice.candidate = request.candidates[std::ranges::find(names, base) - names.begin()];
  choice.table["chosen"] = lines[line]["name"];
  return choice;
}

}  // namespace kvc::choose
