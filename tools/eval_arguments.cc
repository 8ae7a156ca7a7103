#include "tools/eval_arguments.h"

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "tools/number_checks.h"

namespace kvc::tools {

void AddDecodePolicy(CLI::App& app, std::string& policy) {
  app.add_option(
         "--decode-policy", policy,
         "reallocate: the budget holds while decoding; append: tokens after the context are "
         "all kept")
      ->check(CLI::IsMember({"reallocate", "append"}))
      ->capture_default_str();
}

runtime::DecodePolicy ParseDecodePolicy(const std::string& policy) {
  return policy == "append" ? runtime::DecodePolicy::kAppend : runtime::DecodePolicy::kReallocate;
}

void AddNeedleOptions(CLI::App& app, NeedleArguments& args) {
  app.add_option("--lengths", args.lengths, "Lengths of the needle prompts in tokens")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--depths", args.options.depths, "Where the needle stands, 0 to 1")
      ->delimiter(',')
      ->capture_default_str();
  app.add_option("--distractors", args.options.distractors, "Needles with other keys and values")
      ->check(ZeroOrMore())
      ->capture_default_str();
  AddQuestionOption(app, args.question);
}

void AddQuestionOption(CLI::App& app, std::string& question) {
  app.add_option("--question", question,
                 "before: it is in the prompt when the cache is compressed; after: it is not")
      ->check(CLI::IsMember({"before", "after"}))
      ->capture_default_str();
}

std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths) {
  std::vector<int64_t> parsed;
  parsed.reserve(lengths.size());
  for (const std::string& length : lengths) parsed.push_back(ParseLength(length, "--lengths"));
  return parsed;
}

eval::NeedleOptions NeedleArguments::Resolve(runtime::DecodePolicy policy, uint64_t seed) const {
  eval::NeedleOptions resolved = options;
  resolved.lengths = ParseLengths(lengths);
  resolved.question_before = question == "before";
  resolved.policy = policy;
  resolved.seed = seed;
  return resolved;
}

eval::RulerOptions RulerArguments::Resolve(uint64_t seed) const {
  eval::RulerOptions options;
  if (!tasks.empty()) options.tasks = tasks;
  options.lengths = ParseLengths(lengths);
  options.samples = samples;
  options.seed = seed;
  return options;
}

}  // namespace kvc::tools
