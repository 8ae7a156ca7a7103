// kvc-profile: which tokens each head will need, and how well scorers find them.

#include <cstdio>
#include <filesystem>
#include <optional>
#include <system_error>

#include "core/error.h"
#include "core/files.h"
#include "core/sizes.h"
#include "core/text_input.h"
#include "core/tokenizer.h"
#include "model/streamed.h"
#include "model/threads.h"
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

struct Arguments {
  kvc::profile::ProfileOptions options;
  std::string model, output;
  std::vector<std::string> calibration;
  std::vector<std::string> scorers = {"snapkv"};
  std::string context = "1024";
  std::string horizon = "64";
  bool force = false;
};

void AddOptions(CLI::App& app, Arguments& args) {
  auto& options = args.options;
  app.add_option("model", args.model, "Hugging Face directory, thin or not")->required();
  app.add_option("-o,--out", args.output, "Directory to write")->required();
  app.add_option("--calib", args.calibration, "Calibration text, UTF-8 or .jsonl; repeatable")
      ->required();
  app.add_option(
         "--scorer",
         args.scorers,
         "snapkv, expected-attention, keydiff, knorm, streaming or output-error; options as in "
         "output-error:pool=15,keydiff=0.3; repeatable")
      ->capture_default_str();
  app.add_option("--windows", options.windows, "Calibration windows")->capture_default_str();
  app.add_option("--context", args.context, "Tokens of a window that are cached and scored")
      ->capture_default_str();
  app.add_option("--horizon", args.horizon, "Tokens behind them that show what was needed")
      ->capture_default_str();
  app.add_option("--sinks", options.sinks, "First tokens, always kept")->capture_default_str();
  app.add_option("--window", options.window, "Newest tokens, always kept")->capture_default_str();
  app.add_option(
         "--continuation", options.continuation, "teacher; sample comes with a later version")
      ->capture_default_str();
  app.add_option("--importance", options.importance, "oracle; needle comes with a later version")
      ->capture_default_str();
  app.add_flag("--force", args.force, "Replace a directory that is not empty, start anew");
}

void Resolve(Arguments& args) {
  args.options.context = kvc::ParseLength(args.context, "--context");
  args.options.horizon = kvc::ParseLength(args.horizon, "--horizon");
  args.options.scorers.clear();
  for (const std::string& name : args.scorers) {
    args.options.scorers.push_back(kvc::ParseScorer(name, "--scorer"));
  }
}

// Windows of the calibration text, at least one.
std::vector<std::vector<int32_t>> ReadWindows(const Arguments& args) {
  const auto tokenizer = kvc::Tokenizer::Load(args.model);
  std::vector<std::string> documents;
  for (const std::string& file : args.calibration) {
    for (std::string& document : kvc::ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return kvc::model::CutWindows(
      *tokenizer, documents, args.options.windows, args.options.context + args.options.horizon);
}

// File names and hashes, and the seed: what a result should name beside its options.
Json Provenance(const Arguments& args, uint64_t seed) {
  Json files = Json::array();
  for (const std::string& file : args.calibration) {
    files.push_back(
        {{"file", fs::path(file).filename().string()}, {"sha256", kvc::Sha256File(file)}});
  }
  return {{"calibration", files}, {"seed", seed}};
}

// Profiles into `directory`. What a later run cannot use does not stay behind.
kvc::ProfileData ProfileInto(const fs::path& directory,
                             const kvc::Checkpoint& checkpoint,
                             const std::vector<std::vector<int32_t>>& windows,
                             const Arguments& args,
                             uint64_t seed,
                             kvc::Progress& progress) {
  if (args.force) kvc::profile::RemoveProgress(directory);
  try {
    return kvc::profile::ProfileModel(
        checkpoint, windows, args.options, Provenance(args, seed), directory, progress);
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
  kvc::model::SetThreads(kvc::tools::CheckCommonOptions(common));
  const auto progress = kvc::tools::MakeProgress(common);
  const auto checkpoint = kvc::Checkpoint::Open(args.model);
  kvc::profile::CheckProfileOptions(args.options, checkpoint.config());
  const auto windows = ReadWindows(args);
  if (std::ssize(windows) < args.options.windows) {
    progress->Log("calibration text: gives " + std::to_string(windows.size()) + " windows of the " +
                  std::to_string(args.options.windows) + " asked for");
  }
  Json result =
      PlanJson(kvc::profile::PlanProfile(checkpoint.config(), args.options, std::ssize(windows)));
  if (common.dry_run) {
    result["dry_run"] = true;
    return result;
  }
  kvc::OutputDirectory output(args.output, args.force, /*resumable=*/true);
  const kvc::ProfileData profile =
      ProfileInto(output.path(), checkpoint, windows, args, common.seed, *progress);
  kvc::WriteProfile(output.path(), profile);
  kvc::profile::RemoveProgress(output.path());
  output.Commit();
  result["scorers"] = Json::object();
  for (const kvc::ScorerSpec& spec : args.options.scorers) {
    result["scorers"][kvc::ToString(spec)] = LossSummary(profile, &spec);
  }
  result["oracle"] = LossSummary(profile, nullptr)["loss"];
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
  std::printf("windows       %lld, %lld tokens\n",
              result["windows"].get<long long>(),
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
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Profiles the heads of a checkpoint: oracle importance and utility curves");
  kvc::tools::CommonOptions common;
  Arguments args;
  AddOptions(app, args);
  kvc::tools::AddCommonOptions(
      app,
      common,
      "  kvc-profile model -o profile --calib book.txt\n"
      "  kvc-profile thin -o profile --calib a.txt --calib b.jsonl --scorer snapkv "
      "--scorer keydiff --windows 32 --json");
  return kvc::tools::RunCommand(
      argc, argv, "kvc-profile", app, common, [&] { return Run(args, common); }, PrintText);
}
