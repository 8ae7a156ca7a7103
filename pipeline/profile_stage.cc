#include "pipeline/profile_stage.h"

#include <span>
#include <string_view>
#include <system_error>
#include <utility>

#include "core/base/counted.h"
#include "core/base/error.h"
#include "core/base/rank_bytes.h"
#include "core/base/rng.h"
#include "core/checkpoint/checkpoint.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/shared_output.h"
#include "core/io/text_input.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/tasks/needle_task.h"
#include "model/continuation.h"
#include "model/windows.h"
#include "pipeline/profile_bases.h"
#include "profile/lukv_table.h"

namespace kvc::pipeline {
namespace {

namespace fs = std::filesystem;
using profile::Continuation;
using profile::Importance;
using Windows = std::vector<std::vector<int32_t>>;

// Needles with other keys in a question's text: a head that finds a fact must tell it from others.
constexpr int64_t kDistractors = 2;

// Returns every file and folder that is read.
std::vector<fs::path> InputsOf(const ProfileRequest& request) {
  std::vector<fs::path> inputs = request.calibration;
  inputs.push_back(request.model);
  return inputs;
}

void CheckRequest(const ProfileRequest& request, const ModelConfig& config) {
  if (!request.lukv_table.empty()) profile::CheckLuKvTableName(request.lukv_table);
  CheckOutputApart(request.lukv_table, InputsOf(request));
  KVC_CHECK(request.questions.empty() || request.options.continuation == Continuation::kSample,
            kUsage, "--question: expected --continuation sample, got {}",
            profile::ContinuationName(request.options.continuation));
  profile::CheckProfileOptions(request.options, config);
}

std::vector<std::string> ReadCalibration(const ProfileRequest& request) {
  std::vector<std::string> documents;
  for (const fs::path& file : request.calibration) {
    for (std::string& document : ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return documents;
}

// Returns windows cut from the text; reports when it gives fewer than requested.
Windows CutText(const ProfileRequest& request,
                const Tokenizer& tokenizer,
                const std::vector<std::string>& documents,
                Progress& progress) {
  const profile::ProfileOptions& options = request.options;
  Windows windows =
      model::CutWindows(tokenizer, documents, options.windows, options.context + options.horizon);
  if (std::ssize(windows) < options.windows) {
    progress.Log("calibration text: gives " + Counted(std::ssize(windows), "window") + " of the " +
                 std::to_string(options.windows) + " asked for");
  }
  return windows;
}

// Returns each context followed by the model's continuation, or by each question and the model's
// answer. All sequences step together, so rank 0 writes them for all.
Windows SampleWindows(const ProfileRequest& request,
                      const Checkpoint& checkpoint,
                      const Tokenizer& tokenizer,
                      const Windows& texts,
                      Progress& progress,
                      Ranks& ranks) {
  const profile::ProfileOptions& options = request.options;
  Windows questions;
  for (const std::string& question : request.questions) {
    questions.push_back(EncodeContinuation(tokenizer, " " + question));
    KVC_CHECK(std::ssize(questions.back()) < options.horizon, kUsage,
              "--question: expected less than the horizon's {} tokens, got {}; raise --horizon",
              options.horizon, questions.back().size());
  }
  if (questions.empty()) questions.emplace_back();
  Windows windows, forced;
  for (const std::vector<int32_t>& text : texts) {
    for (const std::vector<int32_t>& question : questions) {
      windows.emplace_back(text.begin(), text.begin() + options.context);
      forced.push_back(question);
    }
  }
  std::string sampled;  // [windows, horizon]
  if (ranks.is_first()) {
    for (const std::vector<int32_t>& tokens : model::SampleContinuations(
             checkpoint, windows, forced, {options.horizon, request.temperature, request.seed},
             progress)) {
      AppendBytes(sampled, std::span(tokens));
    }
  }
  sampled = ranks.Broadcast(std::move(sampled));
  std::string_view left = sampled;
  for (std::vector<int32_t>& window : windows) {
    const auto tokens = TakeValues<int32_t>(left, options.horizon);
    window.insert(window.end(), tokens.begin(), tokens.end());
  }
  return windows;
}

// Returns questions about facts hidden in the calibration text, at all depths, as long as a
// context.
std::vector<NeedlePrompt> MakeNeedles(const ProfileRequest& request,
                                      const Tokenizer& tokenizer,
                                      const std::vector<std::string>& documents) {
  std::vector<NeedlePrompt> prompts;
  if (request.options.importance != Importance::kNeedle) return prompts;
  std::string haystack;
  for (const std::string& document : documents) haystack += document + " ";
  const NeedleTask task(tokenizer, haystack);
  const int64_t tests = request.options.needle_tests;
  Rng rng(request.seed);
  for (int64_t i = 0; i < tests; ++i) {
    const double depth = (static_cast<double>(i) + 0.5) / static_cast<double>(tests);
    prompts.push_back(task.Make({request.options.context, depth, kDistractors}, rng));
  }
  return prompts;
}

// Returns file names and hashes, and the seed, which a result should name beside its options.
Json Provenance(const ProfileRequest& request) {
  Json files = Json::array();
  for (const fs::path& file : request.calibration) {
    files.push_back({{"file", file.filename().string()}, {"sha256", Sha256File(file)}});
  }
  Json provenance = {{"calibration", files}, {"seed", request.seed}};
  if (request.options.continuation == Continuation::kSample) {
    provenance["temperature"] = request.temperature;
    provenance["questions"] = request.questions;
  }
  return provenance;
}

profile::ProfileInputs ReadInputs(const ProfileRequest& request,
                                  const Checkpoint& checkpoint,
                                  bool plan_only,
                                  Progress& progress,
                                  Ranks& ranks) {
  const auto tokenizer = Tokenizer::Load(request.model);
  const std::vector<std::string> documents = ReadCalibration(request);
  profile::ProfileInputs inputs;
  inputs.windows = CutText(request, *tokenizer, documents, progress);
  if (request.options.continuation == Continuation::kSample && !plan_only) {
    inputs.windows =
        SampleWindows(request, checkpoint, *tokenizer, inputs.windows, progress, ranks);
  }
  inputs.needles = MakeNeedles(request, *tokenizer, documents);
  inputs.provenance = Provenance(request);
  inputs.make_bases = [&checkpoint](int64_t layer, const profile::LayerGrams& grams) {
    return MakeBases(checkpoint.config(), layer, grams);
  };
  return inputs;
}

// Profiles into `directory`. Files that a later run cannot use are removed.
ProfileData ProfileInto(const fs::path& directory,
                        const Checkpoint& checkpoint,
                        const profile::ProfileInputs& inputs,
                        const ProfileRequest& request,
                        Progress& progress,
                        Ranks& ranks) {
  if (request.force && ranks.is_first()) profile::RemoveProgress(directory);
  ranks.Barrier();
  try {
    return profile::ProfileModel(checkpoint, inputs, request.options, directory, progress, ranks);
  } catch (const Error& error) {
    const bool can_go_on = error.kind() == ErrorKind::kInterrupted ||
                           error.kind() == ErrorKind::kIo || error.kind() == ErrorKind::kUsage;
    if (ranks.is_first() && (!can_go_on || !profile::HasProgress(directory))) {
      std::error_code ignored;  // the first error is the one to report
      fs::remove_all(directory, ignored);
    }
    throw;
  }
}

}  // namespace

profile::ProfilePlan PlanProfileStage(const ProfileRequest& request,
                                      Progress& progress,
                                      const Ranks& ranks) {
  const Checkpoint checkpoint = Checkpoint::Open(request.model);
  for (const std::string& warning : checkpoint.warnings()) progress.Warn(warning);
  CheckRequest(request, checkpoint.config());
  const auto inputs = ReadInputs(request, checkpoint, /*plan_only=*/true, progress, OneRank());
  return profile::PlanProfile(checkpoint.config(), request.options, std::ssize(inputs.windows),
                              ranks.size());
}

ProfileResult RunProfileStage(const ProfileRequest& request, Progress& progress, Ranks& ranks) {
  const Checkpoint checkpoint = Checkpoint::Open(request.model);
  for (const std::string& warning : checkpoint.warnings()) progress.Warn(warning);
  CheckRequest(request, checkpoint.config());
  const auto inputs = ReadInputs(request, checkpoint, /*plan_only=*/false, progress, ranks);
  ProfileResult result;
  result.plan = profile::PlanProfile(checkpoint.config(), request.options,
                                     std::ssize(inputs.windows), ranks.size());
  SharedOutput output(ranks, request.output, InputsOf(request), request.force, /*resumable=*/true);
  result.data = ProfileInto(output.path(), checkpoint, inputs, request, progress, ranks);
  if (ranks.is_first()) {
    WriteProfile(output.path(), result.data);
    profile::RemoveProgress(output.path());
  }
  output.Commit();
  if (!request.lukv_table.empty() && ranks.is_first()) {
    profile::WriteLuKvTable(request.lukv_table, result.data, request.options.scorers.front());
  }
  return result;
}

}  // namespace kvc::pipeline
