#include "tools/eval_arguments.h"

#include <cstdio>

#include <CLI/CLI.hpp>

#include "core/base/sizes.h"
#include "core/io/json.h"
#include "core/io/text_input.h"
#include "eval/compare/requests.h"
#include "eval/tasks/ruler.h"

namespace kvc::tools {
void AddDecodePolicy(CLI::App& app, std::string& policy) {
  app.add_option(
         "--decode-policy", policy,
         "reallocate: the budget holds while decoding; append: tokens after the context are "
         "all kept")
      ->check(CLI::IsMember({"reallocate", "append"}))
      ->capture_default_str();
}

void AddNeedleOptions(CLI::App& app, eval::NeedleArguments& args) {
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
  app.add_option("--question", question,
                 "before: it is in the prompt when the cache is compressed; after: it is not")
      ->check(CLI::IsMember({"before", "after"}))
      ->capture_default_str();
}

void PrintCache(const Json& cache) {
  std::printf("cache       %s of %s (allocated %s, peak %s)\n",
              FormatBytes(cache["logical_bytes"]).c_str(), FormatBytes(cache["full_bytes"]).c_str(),
              FormatBytes(cache["allocated_bytes"]).c_str(),
              FormatBytes(cache["peak_bytes"]).c_str());
}

}  // namespace kvc::tools
