#include "tools/eval_arguments.h"

#include <cstdio>

#include "core/sizes.h"
#include "core/text_input.h"

namespace kvc::tools {

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
  app.add_option("--question",
                 args.question,
                 "before: it is in the prompt when the cache is compressed; after: it is not")
      ->check(CLI::IsMember({"before", "after"}))
      ->capture_default_str();
}

eval::NeedleOptions ToNeedleOptions(const NeedleArguments& args,
                                    runtime::DecodePolicy policy,
                                    uint64_t seed) {
  eval::NeedleOptions options = args.options;
  options.lengths.clear();
  for (const std::string& length : args.lengths) {
    options.lengths.push_back(ParseLength(length, "--lengths"));
  }
  options.question_before = args.question == "before";
  options.policy = policy;
  options.seed = seed;
  return options;
}

std::vector<eval::NeedleCell> PlanCells(const NeedleArguments& args,
                                        const eval::NeedleOptions& options,
                                        const Tokenizer& tokenizer) {
  std::string haystack;
  for (const std::string& document : ReadDocuments(args.haystack)) haystack += document;
  return eval::PlanNeedles(tokenizer, haystack, options);
}

Json CellToJson(const eval::NeedleCell& cell) {
  return {{"length", cell.length},
          {"depth", cell.depth},
          {"accuracy", cell.accuracy},
          {"samples", cell.samples}};
}

void AddDivergence(const eval::Divergence& divergence, Json& result) {
  result["kld_mean"] = divergence.kld_mean;
  result["kld_median"] = divergence.kld_median;
  result["kld_p999"] = divergence.kld_p999;
  result["same_top"] = divergence.same_top;
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
