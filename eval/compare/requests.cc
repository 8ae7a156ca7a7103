#include "eval/compare/requests.h"

#include <utility>

#include "core/base/sizes.h"
#include "core/io/json.h"
#include "core/io/text_input.h"
#include "eval/tasks/ruler.h"

namespace kvc::eval {
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

runtime::DecodePolicy DecodePolicyFromName(const std::string& name) {
  return name == "append" ? runtime::DecodePolicy::kAppend : runtime::DecodePolicy::kReallocate;
}

std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths) {
  std::vector<int64_t> parsed;
  for (const std::string& length : lengths) parsed.push_back(ParseLength(length, "--lengths"));
  return parsed;
}

std::vector<TaskPrompt> PlanRulerPrompts(const RulerArguments& args,
                                         const std::string& haystack,
                                         uint64_t seed,
                                         const Tokenizer& tokenizer) {
  RulerOptions options;
  if (!args.tasks.empty()) options.tasks = args.tasks;
  options.lengths = ParseLengths(args.lengths);
  options.samples = args.samples;
  options.seed = seed;
  return PlanRuler(tokenizer, ReadHaystack(haystack), options);
}

NeedleOptions ToNeedleOptions(const NeedleArguments& args,
                              runtime::DecodePolicy policy,
                              uint64_t seed) {
  NeedleOptions options = args.options;
  options.lengths = ParseLengths(args.lengths);
  options.question_before = args.question == "before";
  options.policy = policy;
  options.seed = seed;
  return options;
}

std::vector<NeedleCell> PlanCells(const NeedleArguments& args,
                                  const NeedleOptions& options,
                                  const Tokenizer& tokenizer) {
  return PlanNeedles(tokenizer, ReadHaystack(args.haystack), options);
}

Json CellToJson(const NeedleCell& cell) {
  return {{"length", cell.length},
          {"depth", cell.depth},
          {"accuracy", cell.accuracy},
          {"samples", cell.samples}};
}

Json CellsToJson(const std::vector<TaskCell>& cells) {
  Json array = Json::array();
  for (const TaskCell& cell : cells) {
    Json line = {{"task", cell.task}};
    if (cell.length > 0) line["length"] = cell.length;
    line["score"] = cell.score;
    line["stderr"] = cell.score_stderr;
    line["samples"] = cell.samples;
    array.push_back(std::move(line));
  }
  return array;
}

void AddDivergence(const Divergence& divergence, Json& result) {
  result["kld_mean"] = divergence.kld_mean;
  result["kld_stderr"] = divergence.kld_stderr;
  result["kld_median"] = divergence.kld_median;
  result["kld_p999"] = divergence.kld_p999;
  result["same_top"] = divergence.same_top;
  result["same_top_stderr"] = divergence.same_top_stderr;
  result["perplexity"] = divergence.model.perplexity;
}

}  // namespace kvc::eval
