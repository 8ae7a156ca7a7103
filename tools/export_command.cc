#include "tools/export_command.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include "core/base/error.h"
#include "core/base/sizes.h"
#include "core/base/thread_pool.h"
#include "core/cache/tier_list.h"
#include "export/bundle/export_bundle.h"
#include "export/bundle/export_json.h"
#include "pipeline/choose/comparison_json.h"
#include "pipeline/choose/export_chosen.h"
#include "tools/export_output.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

constexpr char kAuto[] = "auto";  // of every option that has a default to be found

// Reads options.texts.
void ParseTexts(bundle::ExportOptions& options) {
  const bundle::OptionTexts& texts = options.texts;
  if (texts.dtype != kAuto) options.weights_dtype = DTypeFromShortName(texts.dtype);
  if (texts.cache_dtype != kAuto) {
    options.cache_format = RowFormatFromName(texts.cache_dtype);
    KVC_CHECK(
        !NeedsSteps(*options.cache_format), kUsage,
        "--cache-dtype: expected auto, f32, f16, bf16 or int8, got {}; few bits are a tier's, "
        "as in --tiers 1x8,1x4,1x2",
        texts.cache_dtype);
  }
  options.budget = ParseBudget(texts.budget, "--budget");
  if (!texts.method.empty() && texts.method != kAuto) {
    options.method = MethodFromName(texts.method);
  }
  if (texts.scorer != kAuto) options.scorer = ParseScorer(texts.scorer, "--scorer");
  if (texts.loss != kAuto) options.loss = budget::CurveLossFromName(texts.loss);
  if (!texts.reference_length.empty()) {
    options.reference_length = ParseLength(texts.reference_length, "--reference-length");
  }
  if (texts.recent != kAuto) options.recent_format = RowFormatFromName(texts.recent);
  if (!texts.tiers.empty()) options.tiers = ParseTiers(texts.tiers, "--tiers");
  options.basis = TierBasisFromName(texts.basis);
}

// "CHECKPOINT[,PROFILE]"
choose::Candidate ParseCandidate(const std::string& text) {
  const size_t comma = text.find(',');
  choose::Candidate candidate{text.substr(0, comma), ""};
  if (comma != std::string::npos) candidate.profile = text.substr(comma + 1);
  KVC_CHECK(
      fs::is_directory(candidate.model), kIo,
      "--candidate: expected CHECKPOINT[,PROFILE], got {}, which names no checkpoint directory",
      text);
  return candidate;
}

choose::ChooseRequest MakeRequest(const ExportArguments& arguments) {
  const bundle::ExportOptions& options = arguments.options;
  const AutoArguments& automatic = arguments.automatic;
  choose::ChooseRequest request = automatic.request;
  request.candidates = {{options.model, options.profile}};
  for (const std::string& text : automatic.candidates) {
    request.candidates.push_back(ParseCandidate(text));
  }
  for (const std::string& text : automatic.policies) {
    request.policies.push_back(budget::ParsePolicy(text));
  }
  request.context = ParseLength(automatic.context, "--context");
  request.decode = ParseLength(automatic.decode, "--decode");
  return request;
}

// Runs --method auto: tries compositions, then exports the best with the table of all that were
// tried.
CommandResult ExportBest(const ExportArguments& arguments, const CommonOptions& common) {
  const bundle::ExportOptions& options = arguments.options;
  KVC_CHECK(!options.model.empty(), kUsage, "MODEL: expected a model directory, got none");
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  KVC_CHECK(
      !common.dry_run, kUsage,
      "--dry-run: expected a method that is known beforehand, got auto; use another --method");
  const auto chosen = std::make_shared<const choose::ChosenExport>(
      choose::ExportChosen(MakeRequest(arguments), options, *MakeProgress(common), *common.ranks));
  const choose::Choice& choice = chosen->choice;
  CommandResult result{ToJson(chosen->plan, chosen->written), {}};
  result.json["chosen"] = choice.line;
  result.json["tried"] = ToJson(choice.comparison.lines);
  result.json["screened"] = ToJson(choice.screened);
  result.print = [chosen] {
    PrintChoice(chosen->choice);
    PrintPlan(chosen->plan);
    PrintWritten(chosen->written);
  };
  return result;
}

CommandResult Check(const std::string& directory, int threads) {
  ThreadPool pool(threads);
  const bundle::CheckResult checked = bundle::CheckBundle(directory, pool);
  return {ToJson(checked), [checked] { PrintCheck(checked); }};
}

}  // namespace

CommandResult RunExport(ExportArguments arguments, const CommonOptions& common) {
  bundle::ExportOptions& options = arguments.options;
  options.threads = CheckCommonOptions(common);
  KVC_CHECK(common.ranks->is_only() || options.texts.method == kAuto, kUsage,
            "kvc-export: expected --method auto for several ranks, got {}; start it without a "
            "launcher",
            options.texts.method.empty() ? "no method" : options.texts.method);
  options.seed = common.seed;
  if (!arguments.verify.empty()) {
    KVC_CHECK(options.model.empty() && options.output.empty(), kUsage,
              "--verify: expected no model and no output beside it");
    return Check(arguments.verify, options.threads);
  }
  ParseTexts(options);
  if (options.texts.method == kAuto) return ExportBest(arguments, common);
  // Shared: a checkpoint is mapped and cannot be copied into the closures that print.
  const auto plan = std::make_shared<const bundle::ExportPlan>(bundle::PlanExport(options));
  const std::unique_ptr<Progress> progress = MakeProgress(common);
  if (common.dry_run) {
    for (const std::string& warning : plan->Warnings()) progress->Warn(warning);
    CommandResult result{ToJson(*plan), [plan] {
                           PrintPlan(*plan);
                           std::printf("dry run: nothing written\n");
                         }};
    result.json["dry_run"] = true;
    return result;
  }
  const bundle::ExportResult written = bundle::ExportBundle(*plan, options, nullptr, *progress);
  return {ToJson(*plan, written), [plan, written] {
            PrintPlan(*plan);
            PrintWritten(written);
          }};
}

}  // namespace kvc::tools
