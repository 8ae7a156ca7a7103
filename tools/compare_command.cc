#include "tools/compare_command.h"

#include <cstdio>
#include <filesystem>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/sizes.h"
#include "core/tokenizer.h"
#include "core/version.h"
#include "eval/compare.h"
#include "eval/needle.h"
#include "eval/walk.h"
#include "tools/compare_policies.h"
#include "tools/compare_prompts.h"
#include "tools/eval_arguments.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

// Sequences that are in memory at a time, one for each contestant and sample.
constexpr int64_t kSequences = 32;

struct CompareArguments {
  CompareRequest request;
  std::string output;
  std::string prompts;
  std::vector<std::string> text;
  std::string context = "1024";
  std::string decode = "256";
  std::string policy = "reallocate";
  eval::WalkOptions walk;
  NeedleArguments needle;
  bool force = false;
};

// What is measured, settled before any bundle is loaded.
struct Tasks {
  eval::WalkOptions walk;
  eval::NeedleOptions needle;
  std::vector<std::vector<int32_t>> samples;
  std::vector<eval::NeedleCell> cells;

  [[nodiscard]] int64_t prompts() const {
    int64_t count = 0;
    for (const auto& cell : cells) count += std::ssize(cell.prompts);
    return count;
  }
};

Tasks MakeTasks(const CompareArguments& args, const Tokenizer& tokenizer, uint64_t seed) {
  KVC_CHECK(!args.text.empty() || !args.needle.haystack.empty(),
            kUsage,
            "kvc-eval compare: expected --text or --haystack, got neither");
  Tasks tasks;
  tasks.walk = args.walk;
  tasks.walk.context = ParseLength(args.context, "--context");
  tasks.walk.decode = ParseLength(args.decode, "--decode");
  tasks.walk.policy = DecodePolicyFromName(args.policy);
  if (!args.text.empty()) {
    tasks.samples = eval::CutSamples(tokenizer, ReadAll(args.text), tasks.walk);
  }
  tasks.needle = ToNeedleOptions(args.needle, tasks.walk.policy, seed);
  if (!args.needle.haystack.empty()) {
    tasks.cells = PlanCells(args.needle, tasks.needle, tokenizer);
  }
  return tasks;
}

std::string IdsDigest(const Tasks& tasks) {
  std::string digests;
  const auto add = [&](const std::vector<int32_t>& ids) {
    digests += Sha256(std::as_bytes(std::span(ids)));
  };
  for (const auto& sample : tasks.samples) add(sample);
  for (const auto& cell : tasks.cells) {
    for (const NeedlePrompt& prompt : cell.prompts) {
      add(prompt.context);
      add(prompt.question);
    }
  }
  return Sha256(std::as_bytes(std::span(digests)));
}

// What the numbers depend on.
Json SignatureOf(const Tasks& tasks, const Field& field, const CompareArguments& args) {
  return {{"kvc", Version()},
          {"contestants", field.records},
          {"ids_sha256", IdsDigest(tasks)},
          {"context", tasks.walk.context},
          {"decode", tasks.walk.decode},
          {"decode_policy", args.policy},
          {"question", args.needle.question}};
}

// Scores so far, in memory and, when there is an output, beside it.
struct Progressed {
  fs::path file;  // empty: nowhere
  Json signature;
  std::vector<std::vector<eval::SampleScores>> samples;  // [sample][contestant]
  std::vector<std::vector<bool>> found;                  // [prompt][contestant]

  void Save() const {
    if (file.empty()) return;
    Json json = {{"signature", signature}, {"samples", Json::array()}, {"found", found}};
    for (const auto& sample : samples) {
      Json row = Json::array();
      for (const eval::SampleScores& scores : sample) row.push_back(scores.ToJson());
      json["samples"].push_back(std::move(row));
    }
    WriteJsonFile(file, json);
  }

  void Load() {
    if (file.empty() || !fs::exists(file)) return;
    const Json json = ReadJsonFile(file);
    const std::string origin = file.string();
    KVC_CHECK(GetObject(json, "signature", origin) == signature,
              kUsage,
              origin,
              ": expected the progress of this comparison, got that of another one; use the same "
              "inputs to go on, or --force to start anew");
    for (const Json& row : GetArray(json, "samples", origin)) {
      auto& sample = samples.emplace_back();
      for (const Json& scores : row) {
        sample.push_back(eval::SampleScores::FromJson(scores, origin));
      }
    }
    found = GetArray(json, "found", origin).get<std::vector<std::vector<bool>>>();
  }
};

void WalkSamples(const Tasks& tasks,
                 const Field& field,
                 ThreadPool& pool,
                 Progress& progress,
                 Progressed& state) {
  const auto count = std::ssize(tasks.samples);
  const int64_t batch = std::max<int64_t>(1, kSequences / std::ssize(field.contestants));
  auto done = std::ssize(state.samples) * tasks.walk.decode;
  while (std::ssize(state.samples) < count) {
    const auto first = std::ssize(state.samples);
    const auto samples =
        std::span(tasks.samples).subspan(first, std::min<int64_t>(batch, count - first));
    const auto tick = [&] {
      done += std::ssize(samples);
      progress.Report("text", done, count * tasks.walk.decode);
    };
    for (auto& sample : eval::CompareSamples(field.contestants, samples, tasks.walk, pool, tick)) {
      state.samples.push_back(std::move(sample));
    }
    state.Save();
  }
}

void AskNeedles(const Tasks& tasks,
                const Field& field,
                const Tokenizer& tokenizer,
                Progress& progress,
                Progressed& state) {
  int64_t index = 0;
  for (const auto& cell : tasks.cells) {
    for (const NeedlePrompt& prompt : cell.prompts) {
      if (index++ < std::ssize(state.found)) continue;
      auto& found = state.found.emplace_back();
      for (const eval::NeedleScore& score : eval::CompareNeedle(field.contestants,
                                                                tokenizer,
                                                                prompt,
                                                                tasks.needle.question_before,
                                                                tasks.needle.policy)) {
        found.push_back(score.found);
      }
      state.Save();
      progress.Report("needles", index, tasks.prompts());
    }
  }
}

void AddText(const Progressed& state, size_t contestant, Json& line) {
  std::vector<eval::SampleScores> scores;
  int64_t prompt_bytes = 0;
  int64_t full_bytes = 0;
  for (const auto& sample : state.samples) {
    scores.push_back(sample[contestant]);
    prompt_bytes += sample[contestant].prompt.allocated_bytes;
    full_bytes += sample[contestant].prompt.full_bytes;
  }
  const eval::Divergence result = eval::Summarise(scores);
  AddDivergence(result, line);
  line["nll"] = result.model.nll;
  line["stderr"] = result.model.stderr_nll;
  line["tokens"] = result.model.tokens;
  line["cache"] = result.model.cache.ToJson();
  line["prompt_share"] = static_cast<double>(prompt_bytes) / static_cast<double>(full_bytes);
}

void AddNeedles(const Tasks& tasks, const Progressed& state, size_t contestant, Json& line) {
  size_t next = 0;
  int64_t all = 0;
  line["cells"] = Json::array();
  for (const auto& cell : tasks.cells) {
    int64_t found = 0;
    for (int64_t i = 0; i < cell.samples; ++i) found += state.found[next++][contestant];
    all += found;
    eval::NeedleCell answered{cell.length, cell.depth, cell.samples, 0.0, {}};
    answered.accuracy = static_cast<double>(found) / static_cast<double>(cell.samples);
    line["cells"].push_back(CellToJson(answered));
  }
  line["needles_found"] = all;
  line["needle_accuracy"] = static_cast<double>(all) / static_cast<double>(next);
}

Json ResultOf(const Tasks& tasks, const Field& field, const Progressed& state) {
  Json result = {{"context", tasks.walk.context},
                 {"decode", tasks.walk.decode},
                 {"samples", tasks.samples.size()},
                 {"needles", tasks.prompts()},
                 {"lines", Json::array()}};
  for (size_t c = 0; c < field.contestants.size(); ++c) {
    const Json& record = field.records[c];
    Json line = {{"name", record["name"]},
                 {"budget", record["budget"]},
                 {"bundle", record["bundle"]},
                 {"method", record["cache"]["method"]},
                 {"scorer", record["cache"]["scorer"]}};
    if (!state.samples.empty()) AddText(state, c, line);
    if (!state.found.empty()) AddNeedles(tasks, state, c, line);
    result["lines"].push_back(std::move(line));
  }
  return result;
}

Json RunCompare(const CompareArguments& args, const CommonOptions& common) {
  ThreadPool pool(CheckCommonOptions(common));
  const auto tokenizer = Tokenizer::Load(args.request.reference);
  const Tasks tasks = MakeTasks(args, *tokenizer, common.seed);
  if (!args.prompts.empty()) {
    WriteJsonFile(
        args.prompts,
        PromptsToJson(tasks.walk, tasks.samples, tasks.cells, tasks.needle.question_before));
  }
  if (common.dry_run) {
    return {{"samples", tasks.samples.size()}, {"needles", tasks.prompts()}, {"dry_run", true}};
  }
  CompareRequest request = args.request;
  request.reference_length = tasks.samples.empty() ? tasks.needle.lengths[0] : tasks.walk.context;
  request.append = tasks.walk.policy == runtime::DecodePolicy::kAppend;
  const Field field = MakeField(request, pool);
  const auto progress = MakeProgress(common);
  Progressed state;
  if (!args.output.empty()) state.file = args.output + ".partial";
  state.signature = SignatureOf(tasks, field, args);
  if (args.force && !state.file.empty()) fs::remove(state.file);
  state.Load();
  WalkSamples(tasks, field, pool, *progress, state);
  AskNeedles(tasks, field, *tokenizer, *progress, state);
  Json result = ResultOf(tasks, field, state);
  if (!args.output.empty()) {
    WriteJsonFile(args.output, result);
    fs::remove(state.file);
  }
  return result;
}

void PrintLine(const Json& line, const Json& reference, int64_t needles) {
  std::printf("%-44s %-8s",
              line["name"].get<std::string>().c_str(),
              line["budget"].get<std::string>().c_str());
  if (line.contains("kld_mean")) {
    const double perplexity = line["perplexity"];
    const double against = reference["perplexity"];
    std::printf(" %7.2f %% %8.4f %8.4f %7.3f %8.3f (%+6.1f %%) %7.1f %%",
                100.0 * line["prompt_share"].get<double>(),
                line["kld_mean"].get<double>(),
                line["kld_median"].get<double>(),
                line["kld_p999"].get<double>(),
                perplexity,
                100.0 * (perplexity / against - 1.0),
                100.0 * line["same_top"].get<double>());
  }
  if (line.contains("needles_found")) {
    std::printf(
        " %4lld/%lld", line["needles_found"].get<long long>(), static_cast<long long>(needles));
  }
  std::printf("\n");
}

void PrintCompare(const Json& result) {
  const Json& lines = result["lines"];
  std::printf("%-44s %-8s", "policy", "budget");
  if (lines[0].contains("kld_mean")) {
    std::printf(
        " %9s %8s %8s %7s %19s %9s", "bytes", "KLD", "median", "99.9 %", "perplexity", "same top");
  }
  if (lines[0].contains("needles_found")) std::printf(" needles");
  std::printf("\n");
  for (const Json& line : lines) PrintLine(line, lines[0], result["needles"]);
}

void AddPolicyOptions(CLI::App& app, CompareRequest& request) {
  app.add_option("reference", request.reference, "Bundle that the others are compared with")
      ->required();
  app.add_option("--bundle", request.bundles, "Bundle as it was exported; repeatable");
  app.add_option("--policy",
                 request.policies,
                 "METHOD[/SCORER[/LOSS]] as in kvc-export, no export needed: uniform/snapkv, "
                 "lukv/output-error:pool=15/output-error; repeatable")
      ->take_all();
  app.add_option("--budget", request.budgets, "Budgets of every policy: 50%,25%")->delimiter(',');
  app.add_option(
      "--base",
      request.bases,
      "Bundle whose weights policies run on, thin or not; repeatable; default: REFERENCE");
  app.add_option("--profile", request.profiles, "Profile of a base; repeatable");
  app.add_option("--sinks", request.sinks, "First tokens that no policy drops")
      ->capture_default_str();
  app.add_option("--window", request.window, "Newest tokens that no policy drops")
      ->capture_default_str();
}

void AddTaskOptions(CLI::App& app, CompareArguments& args) {
  app.add_option("--text", args.text, "UTF-8 text or .jsonl to walk; repeatable");
  app.add_option("--context", args.context, "Tokens prefilled, at which budgets are met")
      ->capture_default_str();
  app.add_option("--decode", args.decode, "Tokens predicted after them")->capture_default_str();
  app.add_option("--samples", args.walk.samples, "Windows, spread over the text")
      ->capture_default_str();
  app.add_option("--haystack", args.needle.haystack, "UTF-8 text that hides needles");
  app.add_option(
         "--needles", args.needle.options.samples, "Needle prompts for each length and depth")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddNeedleOptions(app, args.needle);
  AddDecodePolicy(app, args.policy);
  app.add_option(
      "-o,--output", args.output, "JSON file to write; an interrupted run goes on there");
  app.add_option("--save-prompts",
                 args.prompts,
                 "JSON file for the token ids of all windows and needles, with --dry-run too");
  app.add_flag("--force", args.force, "Do not go on with an interrupted run");
}

}  // namespace

EvalCommand AddCompare(CLI::App& app) {
  CLI::App* sub = app.add_subcommand(
      "compare", "Several bundles and policies on the same text and needles, one prefill for all");
  auto args = std::make_shared<CompareArguments>();
  args->needle.lengths = {"1k"};
  AddPolicyOptions(*sub, args->request);
  AddTaskOptions(*sub, *args);
  return {
      sub, [args](const CommonOptions& common) { return RunCompare(*args, common); }, PrintCompare};
}

}  // namespace kvc::tools
