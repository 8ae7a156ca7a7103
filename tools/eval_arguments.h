#pragma once
// Options that several subcommands of kvc-eval share, and the parsing of their texts.

#include <cstdint>
#include <string>
#include <vector>

#include "eval/compare/needle.h"
#include "eval/tasks/ruler.h"
#include "runtime/session.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// Adds --decode-policy reallocate|append.
void AddDecodePolicy(CLI::App& app, std::string& policy);
[[nodiscard]] runtime::DecodePolicy ParseDecodePolicy(const std::string& policy);

// Adds --question before|after.
void AddQuestionOption(CLI::App& app, std::string& question);

// Parses the values of --lengths: "512", "1k".
[[nodiscard]] std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths);

// Arguments of needles in a haystack. Each command names --haystack and the number of samples
// itself.
struct NeedleArguments {
  std::string haystack;
  std::vector<std::string> lengths;
  std::string question = "before";
  eval::NeedleOptions options;  // depths, samples, distractors

  [[nodiscard]] eval::NeedleOptions Resolve(runtime::DecodePolicy policy, uint64_t seed) const;
};
// Adds --lengths, --depths, --distractors and --question.
void AddNeedleOptions(CLI::App& app, NeedleArguments& args);

// Arguments of RULER-style tasks; empty `tasks` means all.
struct RulerArguments {
  std::vector<std::string> tasks;
  std::vector<std::string> lengths;
  int64_t samples = 5;

  [[nodiscard]] eval::RulerOptions Resolve(uint64_t seed) const;
};

}  // namespace kvc::tools
