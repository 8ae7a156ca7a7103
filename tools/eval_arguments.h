#pragma once
// Options that several subcommands of kvc-eval share, and their texts read.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/tokenizer/tokenizer.h"
#include "eval/compare/needle.h"
#include "eval/tasks/ruler.h"
#include "runtime/session.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// --decode-policy reallocate|append
void AddDecodePolicy(CLI::App& app, std::string& policy);
[[nodiscard]] runtime::DecodePolicy ParseDecodePolicy(const std::string& policy);

// --question before|after
void AddQuestionOption(CLI::App& app, std::string& question);

// --lengths: "512", "1k"
[[nodiscard]] std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths);

// Needles in a haystack as they are asked for. --haystack and the number of samples are named by
// each command itself.
struct NeedleArguments {
  std::string haystack;
  std::vector<std::string> lengths;
  std::string question = "before";
  eval::NeedleOptions options;  // depths, samples, distractors

  [[nodiscard]] eval::NeedleOptions Resolve(runtime::DecodePolicy policy, uint64_t seed) const;
};
// --lengths, --depths, --distractors and --question
void AddNeedleOptions(CLI::App& app, NeedleArguments& args);

// RULER-style tasks as they are asked for; `tasks` empty: all.
struct RulerArguments {
  std::vector<std::string> tasks;
  std::vector<std::string> lengths;
  int64_t samples = 5;

  [[nodiscard]] eval::RulerOptions Resolve(uint64_t seed) const;
};

}  // namespace kvc::tools
