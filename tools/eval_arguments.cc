#include "tools/eval_arguments.h"

#include <cstdio>

#include "core/sizes.h"
#include "core/text_input.h"
#include "eval/ruler.h"

namespace kvc::tools {

namespace {

std::string ReadHaystack(const std::string& file) {
  std::string haystack;
  for (const std::string& document : ReadDocuments(file)) haystack += document;
  return haystack;
}

}  // namespace

LoadedBundle LoadBundle(const std::string& directory, ThreadPool& pool) {
  LoadedBundle loaded;
  loaded.bundle = runtime::Bundle::Load(directory, {}, pool);
  loaded.session = runtime::Session::Create(loaded.bundle, pool);
  return loaded;
}

std::vector<std::string> ReadAll(const std::vector<std::string>& files) {
  std::vector<std::string> documents;
  for (const std::string& file : files) {
    for (std::string& document : ReadDocuments(file)) documents.push_back(std::move(document));
  }
  return documents;
}

void AddDecodePolicy(CLI::App& app, std::string& policy) {
  app.add_option(
         "--decode-policy",
         policy,
         "reallocate: the budget holds while decoding; append: tokens after the context are "
         "all kept")
      ->check(CLI::IsMember({"reallocate", "append"}))
      ->capture_default_str();
}

runtime::DecodePolicy DecodePolicyFromName(const std::string& name) {
  return name == "append" ? runtime::DecodePolicy::kAppend : runtime::DecodePolicy::kReallocate;
}

void AddNeedleOptions(CLI::App& app, NeedleArguments& args) {
  app.add_option("--lengths", args.lengths, "Lengths of the needle prompts in tokens")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--depths", args.options.depths, "Where the needle stands, 0 to 1")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--distractors", args.options.distractors, "Needles with other keys and values")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddQuestionOption(app, args.question);
}

void AddQuestionOption(CLI::App& app, std::string& question) {
  app.add_option("--question",
                 question,
                 "before: it is in the prompt when the cache is compressed; after: it is not")
      ->check(CLI::IsMember({"before", "after"}))
      ->capture_default_str();
}

std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths) {
  std::vector<int64_t> parsed;
  for (const std::string& length : lengths) parsed.push_back(ParseLength(length, "--lengths"));
  return parsed;
}

std::vector<eval::TaskPrompt> PlanRulerPrompts(const RulerArguments& args,
                                               const std::string& haystack,
                                               uint64_t seed,
                                               const Tokenizer& tokenizer) {
  eval::RulerOptions options;
  if (!args.tasks.empty()) options.tasks = args.tasks;
  options.lengths = ParseLengths(args.lengths);
  options.samples = args.samples;
  options.seed = seed;
  return eval::PlanRuler(tokenizer, ReadHaystack(haystack), options);
}

eval::NeedleOptions ToNeedleOptions(const NeedleArguments& args,
                                    runtime::DecodePolicy policy,
                                    uint64_t seed) {
  eval::NeedleOptions options = args.options;
  options.lengths = ParseLengths(args.lengths);
  options.question_before = args.question == "before";
  options.policy = policy;
  options.seed = seed;
  return options;
}

std::vector<eval::NeedleCell> PlanCells(const NeedleArguments& args,
                                        const eval::NeedleOptions& options,
                                        const Tokenizer& tokenizer) {
  return eval::PlanNeedles(tokenizer, ReadHaystack(args.haystack), options);
}

Json CellToJson(const eval::NeedleCell& cell) {
  return {{"length", cell.length},
          {"depth", cell.depth},
          {"accuracy", cell.accuracy},
          {"samples", cell.samples}};
}

Json CellsToJson(const std::vector<eval::TaskCell>& cells) {
  Json array = Json::array();
  for (const eval::TaskCell& cell : cells) {
    Json line = {{"task", cell.task}};
    if (cell.length > 0) line["length"] = cell.length;
    line["score"] = cell.score;
    line["stderr"] = cell.score_stderr;
    line["samples"] = cell.samples;
    array.push_back(std::move(line));
  }
  return array;
}

void AddDivergence(const eval::Divergence& divergence, Json& result) {
  result["kld_mean"] = divergence.kld_mean;
  result["kld_stderr"] = divergence.kld_stderr;
  result["kld_median"] = divergence.kld_median;
  result["kld_p999"] = divergence.kld_p999;
  result["same_top"] = divergence.same_top;
  result["same_top_stderr"] = divergence.same_top_stderr;
  result["perplexity"] = divergence.model.perplexity;
}

void PrintCache(const Json& cache) {
  std::printf("cache       %s of %s (allocated %s, peak %s)\n",
              FormatBytes(cache["logical_bytes"]).c_str(),
              FormatBytes(cache["full_bytes"]).c_str(),
              FormatBytes(cache["allocated_bytes"]).c_str(),
              FormatBytes(cache["peak_bytes"]).c_str());
}

}  // namespace kvc::tools
