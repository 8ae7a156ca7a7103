#include "pipeline/choose/export_chosen.h"

#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/cache/profile_file.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "pipeline/choose/comparison_json.h"

namespace kvc::choose {
namespace {

namespace fs = std::filesystem;

// Returns every file and folder that is read.
std::vector<fs::path> InputsOf(const ChooseRequest& request) {
  std::vector<fs::path> inputs;
  for (const Candidate& candidate : request.candidates) {
    inputs.insert(inputs.end(), {candidate.model, candidate.profile});
  }
  inputs.insert(inputs.end(), request.text.begin(), request.text.end());
  inputs.push_back(request.haystack);
  return inputs;
}

// Returns what must be equal on all ranks, which have the same options.
RankFacts FactsOf(const ChooseRequest& request) {
  RankFacts facts;
  const auto add = [&facts](const fs::path& file) {
    if (!file.empty()) facts.emplace_back(file.string(), Sha256File(file));
  };
  for (const Candidate& candidate : request.candidates) {
    facts.emplace_back(candidate.model.string(), ModelDigest(candidate.model));
    if (candidate.profile.empty()) continue;
    for (const char* file : {"profile.json", "profile.safetensors", "bases.safetensors"}) {
      if (fs::exists(candidate.profile / file)) add(candidate.profile / file);
    }
  }
  for (const fs::path& text : request.text) add(text);
  add(request.haystack);
  return facts;
}

}  // namespace

Json ToJson(const Choice& choice) {
  Json json = ToJson(choice.comparison);
  json["screened"] = ToJson(choice.screened);
  json["chosen"] = choice.line;
  return json;
}

ChosenExport ExportChosen(ChooseRequest request,
                          const bundle::ExportOptions& options,
                          Progress& progress,
                          Ranks& ranks) {
  request.budget = {options.texts.budget, options.budget};
  request.weights_dtype = options.weights_dtype;
  request.cache_format = options.cache_format;
  request.sinks = options.sinks;
  request.window = options.window;
  request.seed = options.seed;
  request.threads = options.threads;
  request.scratch = options.output.string() + ".auto";
  if (!ranks.is_only()) CheckAgreement(ranks, FactsOf(request));
  std::optional<OutputDirectory> output;  // of rank 0
  if (ranks.is_first()) output.emplace(options.output, InputsOf(request), options.force);
  ThreadPool pool(options.threads);
  Choice choice = ChooseComposition(request, pool, progress, ranks);
  bundle::ExportOptions best = options;
  best.model = choice.candidate.model;
  best.profile = choice.candidate.profile;
  best.SetPolicy(choice.policy.name, choice.policy.policy);
  bundle::ExportPlan plan = bundle::PlanExport(best);
  bundle::ExportResult written;
  if (output) {
    written = bundle::ExportBundle(plan, best, {{"auto", ToJson(choice)}}, *output, progress);
  }
  return {std::move(choice), std::move(plan), std::move(written)};
}

}  // namespace kvc::choose
