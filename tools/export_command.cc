#include "tools/export_command.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/thread_pool.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "export/bundle/export_bundle.h"

namespace kvc::tools {
namespace {

constexpr char kAutoMethod[] = "auto";

// Every file and folder that --method auto reads.
std::vector<std::filesystem::path> InputsOf(const ExportArguments& arguments) {
  const choose::AutoOptions& automatic = arguments.automatic;
  std::vector<std::filesystem::path> inputs = {arguments.options.model, arguments.options.profile,
                                               automatic.haystack};
  inputs.insert(inputs.end(), automatic.text.begin(), automatic.text.end());
  for (const std::string& text : automatic.candidates) {
    const choose::AutoCandidate candidate = choose::ParseCandidate(text);
    inputs.insert(inputs.end(), {candidate.model, candidate.profile});
  }
  return inputs;
}

// --method auto: tries compositions, then exports the best with the table of what was tried.
Json ExportBest(const ExportArguments& arguments, const CommonOptions& common) {
  const bundle::ExportOptions& options = arguments.options;
  KVC_CHECK(!options.model.empty(), kUsage, "MODEL: expected a model directory, got none");
  KVC_CHECK(!options.output.empty(), kUsage, "-o: expected an output directory, got none");
  KVC_CHECK(
      !common.dry_run, kUsage,
      "--dry-run: expected a method that is known beforehand, got auto; use another --method");
  OutputDirectory output(options.output, InputsOf(arguments), options.force);
  ThreadPool pool(options.threads);
  const std::unique_ptr<Progress> progress = MakeProgress(common);
  choose::AutoRequest request;
  request.options = arguments.automatic;
  request.candidates = {{options.model, options.profile}};
  for (const std::string& text : arguments.automatic.candidates) {
    request.candidates.push_back(choose::ParseCandidate(text));
  }
  request.budget = options.budget;
  request.sinks = options.sinks;
  request.window = options.window;
  request.seed = common.seed;
  request.scratch = options.output + ".auto";
  request.export_full = [&](const choose::AutoCandidate& candidate, const std::string& directory) {
    bundle::ExportOptions full = options;
    full.model = candidate.model;
    full.profile.clear();
    full.output = directory;
    full.budget = "100%";
    full.method = MethodName(Method::kFull);
    full.no_verify = true;
    (void)bundle::ExportBundle(bundle::MakePlan(full), full, nullptr, *progress);
  };
  const choose::AutoChoice choice = choose::ChooseComposition(request, pool, *progress);
  bundle::ExportOptions best = options;
  best.model = choice.candidate.model;
  best.profile = choice.candidate.profile;
  best.policy = choice.policy;
  Json result = bundle::ExportBundle(bundle::MakePlan(best), best, {{kAutoMethod, choice.table}},
                                     output, *progress);
  result["chosen"] = choice.table["chosen"];
  result["tried"] = choice.table["lines"];
  result["screened"] = choice.table["screened"];
  return result;
}

void AddAutoOptions(CLI::App& app, choose::AutoOptions& options) {
  const std::string group = "With --method auto";
  app.add_option("--candidate", options.candidates,
                 "CHECKPOINT[,PROFILE] to try beside MODEL, as one with thin keys; repeatable")
      ->group(group);
  app.add_option("--policy", options.policies,
                 "METHOD[/SCORER[/LOSS]][@TIERS] to try on every checkpoint; repeatable; default: "
                 "what the profile allows")
      ->group(group);
  app.add_option("--text", options.text, "Held-back text to judge by; repeatable")->group(group);
  app.add_option("--haystack", options.haystack, "Text that hides needles; default: none are asked")
      ->group(group);
  app.add_option("--context", options.context, "Tokens of a prompt and of a needle prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--decode", options.decode, "Tokens predicted after a prompt")
      ->capture_default_str()
      ->group(group);
  app.add_option("--samples", options.samples, "Windows of text")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--needles", options.needles, "Needles at each of five depths")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(group);
  app.add_option("--least-needles", options.least_needles,
                 "Share of the full cache's needles that a choice must find")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
}

void PrintLines(const Json& lines, const Json& chosen) {
  for (const Json& line : lines) {
    std::printf("%-52s KLD %.4f  perplexity %.3f", line["name"].get<std::string>().c_str(),
                line["kld_mean"].get<double>(), line["perplexity"].get<double>());
    if (line.contains("needle_accuracy")) {
      std::printf("  needles %.0f %%", 100.0 * line["needle_accuracy"].get<double>());
    }
    std::printf("%s\n", line["name"] == chosen ? "  <- chosen" : "");
  }
}

}  // namespace

void AddExportOptions(CLI::App& app, ExportArguments& arguments) {
  AddAutoOptions(app, arguments.automatic);
  bundle::ExportOptions& options = arguments.options;
  app.add_option("model", options.model, "Checkpoint directory, thin or not");
  app.add_option("-o,--out,--output", options.output, "Bundle directory to write");
  app.add_option("--verify", arguments.verify, "Check a bundle: hashes, structure, stored logits");
  app.add_option("--budget", options.budget, "Cache budget: 25%, 512tok or 1GiB@128k")
      ->capture_default_str();
  app.add_option("--profile", options.profile,
                 "Profile directory (headkv, lukv, lukv-mixed and offline bases need it)");
  app.add_option(
      "--method", options.method,
      "full, streaming, uniform, pyramid, ada, ada-model, headkv, lukv, lukv-mixed, or auto: "
      "the best of what is tried on held-back --text; default: full at 100%, lukv with "
      "a profile, else uniform");
  app.add_option(
         "--scorer", options.scorer,
         "What ranks cached tokens: snapkv, expected-attention, keydiff, knorm, streaming or "
         "output-error; options as in output-error:prompt=1024")
      ->capture_default_str();
  app.add_option("--loss", options.loss,
                 "What lukv and lukv-mixed keep small: importance, or output-error, which is "
                 "comparable over the whole model")
      ->capture_default_str();
  app.add_option("--tiers", options.tiers,
                 "Shares of its width that a token may keep: 0,1/8,1/4,1, or "
                 "key=0,1/4,1;value=0,1/2,1; default: 0,1, with lukv-mixed 0,1/8,1/4,1");
  app.add_option("--basis", options.basis,
                 "Coordinates of narrow tiers: offline (the profile's) or prompt (found in each "
                 "prompt and held by the sequence)")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "First tokens that are never dropped")
      ->capture_default_str();
  app.add_option("--window", options.window, "Newest tokens that are never dropped")
      ->capture_default_str();
  app.add_option("--dtype", options.dtype, "f32, f16 or bf16: weights and cache")
      ->capture_default_str();
  app.add_option("--reference-length", options.reference_length,
                 "Tokens at which the budget is met; default: the profile's context, or 4k");
  app.add_flag("--no-verify", options.no_verify, "Do not run the bundle against its source");
  app.add_flag("--force", options.force, "Replace an existing output");
}

Json RunExport(ExportArguments arguments, const CommonOptions& common) {
  bundle::ExportOptions& options = arguments.options;
  options.threads = CheckCommonOptions(common);
  options.seed = common.seed;
  if (!arguments.verify.empty()) {
    KVC_CHECK(options.model.empty() && options.output.empty(), kUsage,
              "--verify: expected no model and no output beside it");
    ThreadPool pool(options.threads);
    return bundle::CheckBundle(arguments.verify, pool);
  }
  if (options.method == kAutoMethod) return ExportBest(arguments, common);
  const bundle::ExportPlan plan = bundle::MakePlan(options);
  if (common.dry_run) {
    Json result = bundle::PlanToJson(plan);
    result["dry_run"] = true;
    return result;
  }
  return bundle::ExportBundle(plan, options, nullptr, *MakeProgress(common));
}

void PrintExport(const Json& result) {
  const Json& error = result["verified_max_abs_error"];
  const std::string verified =
      error.is_number() ? "max abs error " + error.dump() : std::string("not verified");
  if (!result.contains("method")) {
    std::printf("%s: %s files as recorded, %s\n", result["bundle"].get<std::string>().c_str(),
                result["files"].dump().c_str(), verified.c_str());
    return;
  }
  if (result.contains("chosen")) {
    if (!result["screened"].empty()) std::printf("left out after a third of the windows:\n");
    PrintLines(result["screened"], nullptr);
    if (!result["screened"].empty()) std::printf("on all windows:\n");
    PrintLines(result["tried"], result["chosen"]);
  }
  const Json& cache = result["cache"];
  std::printf("method %s, scorer %s, dtype %s\n", result["method"].get<std::string>().c_str(),
              result["scorer"].get<std::string>().c_str(),
              result["dtype"].get<std::string>().c_str());
  std::printf("cache of %lld tokens: %s of %s (%.2f %%)\n",
              static_cast<long long>(result["reference_length"].get<int64_t>()),
              FormatBytes(cache["allocated_bytes"].get<int64_t>()).c_str(),
              FormatBytes(cache["full_bytes"].get<int64_t>()).c_str(),
              100.0 * result["budget_bytes_per_token_share"].get<double>());
  std::printf("solver: objective %g, bound %g, gap %g\n",
              result["solver"]["objective"].get<double>(), result["solver"]["bound"].get<double>(),
              result["solver"]["gap"].get<double>());
  if (result.contains("dry_run")) {
    std::printf("dry run: nothing written\n");
  } else {
    std::printf("%s: %s\n", result["bundle"].get<std::string>().c_str(), verified.c_str());
  }
}

}  // namespace kvc::tools
