// kvc-profile: which tokens each head will need, and how well scorers find them.

#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include <CLI/CLI.hpp>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "core/base/sizes.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/tasks/needle_task.h"
#include "linalg/svd.h"
#include "model/continuation.h"
#include "model/threads.h"
#include "model/windows.h"
#include "pipeline/profile_bases.h"
#include "profile/lukv_table.h"
#include "profile/profile_model.h"
#include "tools/common_options.h"

namespace {

namespace fs = std::filesystem;
using kvc::Json;

// Budgets at which the result is summed up.
constexpr struct {
  const char* name;
  double share;
} kShares[] = {{"50%", 0.5}, {"25%", 0.25}, {"12.5%", 0.125}};

// Needles with other keys in a question's text: what finds a fact must tell it from others.
constexpr int64_t kDistractors = 2;

struct Arguments {
  kvc::profile::ProfileOptions options;
  std::string model, output;
  std::vector<std::string> calibration;
  std::vector<std::string> scorers = {"snapkv"};
  std::string context = "1024";
  std::string horizon = "64";
  std::string lukv_table;
  std::vector<std::string> questions;
  double temperature = 0.7;
  bool force = false;
};

void AddOptions(CLI::App& app, Arguments& args) {
  auto& options = args.options;
  app.add_option("model", args.model, "Hugging Face directory, thin or not")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option(
         "--calib", args.calibration,
         "Calibration text, UTF-8 or .jsonl; repeatable: budgets from several kinds of text "
         "carry further, each file weighs by its length")
      ->required();
  app.add_option(
         "--scorer", args.scorers,
         "snapkv, expected-attention, keydiff, knorm, streaming or output-error; options as in "
         "output-error:prompt=1024; repeatable")
      ->capture_default_str();
  app.add_option("--windows", options.windows, "Calibration windows")->capture_default_str();
  app.add_option("--context", args.context, "Tokens of a window that are cached and scored")
      ->capture_default_str();
  app.add_option("--horizon", args.horizon, "Tokens behind them that show what was needed")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "First tokens, always kept")->capture_default_str();
  app.add_option("--window", options.window, "Newest tokens, always kept")->capture_default_str();
  app.add_option("--continuation", options.continuation,
                 "The horizon: teacher (the text goes on) or sample (the model does)")
      ->capture_default_str();
  app.add_option("--temperature", args.temperature, "Of --continuation sample; 0: greedy")
      ->capture_default_str();
  app.add_option("--question", args.questions,
                 "With --continuation sample: the horizon is this question and the model's answer; "
                 "repeatable, every context meets every question");
  app.add_option("--importance", options.importance,
                 "Head importance: oracle (mass of what is needed) or needle (who finds the asked "
                 "fact; oracle where the model answers less than a quarter of the questions)")
      ->capture_default_str();
  app.add_option("--tiers", options.tiers,
                 "Shares of its width that a token may keep, for the curves with tiers; 0,1: no "
                 "such curves")
      ->capture_default_str();
  app.add_option("--needle-tests", options.needle_tests, "Questions asked with --importance needle")
      ->capture_default_str();
  app.add_option("--lukv-table", args.lukv_table,
                 "Also write LU-KV's table of pruning ratios [99, layers, kv heads] for the first "
                 "scorer, .npy or .safetensors");
  app.add_flag("--force", args.force, "Replace a directory that is not empty, start anew");
}

void Resolve(Arguments& args) {
  args.options.context = kvc::ParseLength(args.context, "--context");
  args.options.horizon = kvc::ParseLength(args.horizon, "--horizon");
  if (!args.lukv_table.empty()) kvc::profile::CheckLuKvTableName(args.lukv_table);
  KVC_CHECK(args.questions.empty() || args.options.continuation == "sample", kUsage,
            "--question: expected --continuation sample, got {}", args.options.continuation);
  args.options.scorers.clear();
  for (const std::string& name : args.scorers) {
    args.options.scorers.push_back(kvc::ParseScorer(name, "--scorer"));
  }
}

std::vector<std::string> ReadCalibration(const Arguments& args) {
  std::vector<std::string> documents;
  for (const std::string& file : args.calibration) {
    for (std::string& document : kvc::ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return documents;
}

// Questions about facts hidden in the calibration text, at all depths, as long as a context.
std::vector<kvc::NeedlePrompt> MakeNeedles(const Arguments& args,
                                           const kvc::Tokenizer& tokenizer,
                                           const std::vector<std::string>& documents,
                                           uint64_t seed) {
  std::vector<kvc::NeedlePrompt> prompts;
  if (args.options.importance != "needle") return prompts;
  std::string haystack;
  for (const std::string& document : documents) haystack += document + " ";
  const kvc::NeedleTask task(tokenizer, haystack);
  const int64_t tests = args.options.needle_tests;
  kvc::Rng rng(seed);
  for (int64_t i = 0; i < tests; ++i) {
    const double depth = (static_cast<double>(i) + 0.5) / static_cast<double>(tests);
    prompts.push_back(task.Make({args.options.context, depth, kDistractors}, rng));
  }
  return prompts;
}

// File names and hashes, and the seed: what a result should name beside its options.
Json Provenance(const Arguments& args, uint64_t seed) {
  Json files = Json::array();
  for (const std::string& file : args.calibration) {
    files.push_back(
        {{"file", fs::path(file).filename().string()}, {"sha256", kvc::Sha256File(file)}});
  }
  Json provenance = {{"calibration", files}, {"seed", seed}};
  if (args.options.continuation == "sample") {
    provenance["temperature"] = args.temperature;
    provenance["questions"] = args.questions;
  }
  return provenance;
}

// Each context followed by what the model writes, or by each question and what it answers.
std::vector<std::vector<int32_t>> SampleWindows(const Arguments& args,
                                                const kvc::Checkpoint& checkpoint,
                                                const kvc::Tokenizer& tokenizer,
                                                const std::vector<std::vector<int32_t>>& texts,
                                                uint64_t seed,
                                                kvc::Progress& progress) {
  std::vector<std::vector<int32_t>> questions;
  for (const std::string& question : args.questions) {
    questions.push_back(kvc::EncodeContinuation(tokenizer, " " + question));
    KVC_CHECK(std::ssize(questions.back()) < args.options.horizon, kUsage,
              "--question: expected less than the horizon's {} tokens, got {}; raise --horizon",
              args.options.horizon, questions.back().size());
  }
  if (questions.empty()) questions.emplace_back();
  std::vector<std::vector<int32_t>> windows, forced;
  for (const std::vector<int32_t>& text : texts) {
    for (const std::vector<int32_t>& question : questions) {
      windows.emplace_back(text.begin(), text.begin() + args.options.context);
      forced.push_back(question);
    }
  }
  const auto continuations = kvc::model::SampleContinuations(
      checkpoint, windows, forced, {args.options.horizon, args.temperature, seed}, progress);
  for (size_t i = 0; i < windows.size(); ++i) {
    windows[i].insert(windows[i].end(), continuations[i].begin(), continuations[i].end());
  }
  return windows;
}

kvc::profile::ProfileInputs ReadInputs(const Arguments& args,
                                       const kvc::Checkpoint& checkpoint,
                                       uint64_t seed,
                                       bool plan_only,
                                       kvc::Progress& progress) {
  const auto tokenizer = kvc::Tokenizer::Load(args.model);
  const std::vector<std::string> documents = ReadCalibration(args);
  kvc::profile::ProfileInputs inputs;
  inputs.windows = kvc::model::CutWindows(*tokenizer, documents, args.options.windows,
                                          args.options.context + args.options.horizon);
  if (args.options.continuation == "sample" && !plan_only) {
    inputs.windows = SampleWindows(args, checkpoint, *tokenizer, inputs.windows, seed, progress);
  }
  inputs.needles = MakeNeedles(args, *tokenizer, documents, seed);
  inputs.provenance = Provenance(args, seed);
  inputs.make_bases = [&checkpoint](int64_t layer, const kvc::profile::LayerGrams& grams) {
    // Libraries that split products by the number of threads round in another way.
    const kvc::model::SingleThreadedOperations single;
    const auto svd = kvc::linalg::Svd::Create(kvc::linalg::SvdBackend::kLapack);
    return kvc::pipeline::MakeBases(checkpoint.config(), layer, grams, *svd);
  };
  return inputs;
}

// Profiles into `directory`. What a later run cannot use does not stay behind.
kvc::ProfileData ProfileInto(const fs::path& directory,
                             const kvc::Checkpoint& checkpoint,
                             const kvc::profile::ProfileInputs& inputs,
                             const Arguments& args,
                             kvc::Progress& progress) {
  if (args.force) kvc::profile::RemoveProgress(directory);
  try {
    return kvc::profile::ProfileModel(checkpoint, inputs, args.options, directory, progress);
  } catch (const kvc::Error& error) {
    const bool can_go_on = error.kind() == kvc::ErrorKind::kInterrupted ||
                           error.kind() == kvc::ErrorKind::kIo ||
                           error.kind() == kvc::ErrorKind::kUsage;
    if (!can_go_on || !kvc::profile::HasProgress(directory)) {
      std::error_code ignored;  // the first error is the one to report
      fs::remove_all(directory, ignored);
    }
    throw;
  }
}

// Loss at each share, and how many times the oracle's own.
Json LossSummary(const kvc::ProfileData& profile, const kvc::ScorerSpec* scorer) {
  Json loss = Json::object();
  Json ratio = Json::object();
  for (const auto& [name, share] : kShares) {
    const double lost = kvc::profile::MeanLoss(profile, scorer, share);
    const double least = kvc::profile::MeanLoss(profile, nullptr, share);
    loss[name] = lost;
    ratio[name] = least > 0.0 ? Json(lost / least) : Json();
  }
  return {{"loss", loss}, {"ratio", ratio}};
}

Json PlanJson(const kvc::profile::ProfilePlan& plan) {
  return {{"windows", plan.windows},
          {"tokens", plan.tokens},
          {"hidden_bytes", plan.hidden_bytes},
          {"memory_bytes", plan.memory_bytes}};
}

Json Run(Arguments& args, const kvc::tools::CommonOptions& common) {
  Resolve(args);
  std::vector<fs::path> files(args.calibration.begin(), args.calibration.end());
  files.emplace_back(args.model);
  kvc::CheckOutputApart(args.lukv_table, files);
  kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
  const auto progress = kvc::tools::MakeProgress(common);
  const auto checkpoint = kvc::Checkpoint::Open(args.model);
  kvc::profile::CheckProfileOptions(args.options, checkpoint.config());
  const kvc::profile::ProfileInputs inputs =
      ReadInputs(args, checkpoint, common.seed, common.dry_run, *progress);
  const int64_t windows = std::ssize(inputs.windows);
  if (windows < args.options.windows) {
    progress->Log("calibration text: gives " + std::to_string(windows) + " windows of the " +
                  std::to_string(args.options.windows) + " asked for");
  }
  Json result = PlanJson(kvc::profile::PlanProfile(checkpoint.config(), args.options, windows));
  if (common.dry_run) {
    result["dry_run"] = true;
    return result;
  }
  kvc::OutputDirectory output(args.output, files, args.force, /*resumable=*/true);
  const kvc::ProfileData profile = ProfileInto(output.path(), checkpoint, inputs, args, *progress);
  kvc::WriteProfile(output.path(), profile);
  kvc::profile::RemoveProgress(output.path());
  output.Commit();
  if (!args.lukv_table.empty()) {
    kvc::profile::WriteLuKvTable(args.lukv_table, profile, args.options.scorers.front());
  }
  result["scorers"] = Json::object();
  for (const kvc::ScorerSpec& spec : args.options.scorers) {
    result["scorers"][kvc::ToString(spec)] = LossSummary(profile, &spec);
  }
  result["oracle"] = LossSummary(profile, nullptr)["loss"];
  result["importance"] = {{"method", profile.importance_method},
                          {"tests", profile.importance_tests},
                          {"needle_tests", profile.needle_tests},
                          {"needle_passed", profile.needle_passed}};
  return result;
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

void PrintText(const Json& result) {
  std::printf("windows       %lld, %lld tokens\n", result["windows"].get<long long>(),
              result["tokens"].get<long long>());
  std::printf("hidden states %s, memory about %s beside the mapped weights\n",
              kvc::FormatBytes(result["hidden_bytes"].get<int64_t>()).c_str(),
              kvc::FormatBytes(result["memory_bytes"].get<int64_t>()).c_str());
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

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Profiles the heads of a checkpoint: oracle importance and utility curves");
  kvc::tools::CommonOptions common;
  Arguments args;
  AddOptions(app, args);
  kvc::tools::AddCommonOptions(
      app, common,
      "  kvc-profile model -o profile --calib book.txt\n"
      "  kvc-profile thin -o profile --calib a.txt --calib b.jsonl --scorer snapkv "
      "--scorer keydiff --windows 32 --json");
  return kvc::tools::RunCommand(
      argc, argv, "kvc-profile", app, common, [&] { return Run(args, common); }, PrintText);
}
