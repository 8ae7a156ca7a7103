#pragma once
// What the subcommands of kvc-eval share in reading their arguments.

#include <memory>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/json.h"
#include "core/thread_pool.h"
#include "core/tokenizer.h"
#include "eval/answers.h"
#include "eval/needle.h"
#include "eval/walk.h"
#include "runtime/session.h"

namespace kvc::tools {

// A bundle with everything that runs it. The pool must outlive the session.
struct LoadedBundle {
  std::shared_ptr<const runtime::Bundle> bundle;
  std::unique_ptr<runtime::Session> session;
};
[[nodiscard]] LoadedBundle LoadBundle(const std::string& directory, ThreadPool& pool);

// Documents of all files, in order.
[[nodiscard]] std::vector<std::string> ReadAll(const std::vector<std::string>& files);
// --decode-policy: how it is added and what it means.
void AddDecodePolicy(CLI::App& app, std::string& policy);
[[nodiscard]] runtime::DecodePolicy DecodePolicyFromName(const std::string& name);

// The needle grid: its options but --haystack and the number of samples, which commands name
// themselves.
struct NeedleArguments {
  std::string haystack;
  std::vector<std::string> lengths;
  std::string question = "before";
  eval::NeedleOptions options;
};
void AddNeedleOptions(CLI::App& app, NeedleArguments& args);
[[nodiscard]] eval::NeedleOptions ToNeedleOptions(const NeedleArguments& args,
                                                  runtime::DecodePolicy policy,
                                                  uint64_t seed);
// The prompts of the grid in the haystack's documents.
[[nodiscard]] std::vector<eval::NeedleCell> PlanCells(const NeedleArguments& args,
                                                      const eval::NeedleOptions& options,
                                                      const Tokenizer& tokenizer);

// --question before|after
void AddQuestionOption(CLI::App& app, std::string& question);
// --lengths
[[nodiscard]] std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths);

// RULER-style tasks: their options but haystack, lengths and samples.
struct RulerArguments {
  std::vector<std::string> tasks;  // empty: all
  std::vector<std::string> lengths;
  int64_t samples = 5;
};
[[nodiscard]] std::vector<eval::TaskPrompt> PlanRulerPrompts(const RulerArguments& args,
                                                             const std::string& haystack,
                                                             uint64_t seed,
                                                             const Tokenizer& tokenizer);

// Results as kvc-eval writes them.
[[nodiscard]] Json CellToJson(const eval::NeedleCell& cell);
[[nodiscard]] Json CellsToJson(const std::vector<eval::TaskCell>& cells);
void AddDivergence(const eval::Divergence& divergence, Json& result);
void PrintCache(const Json& cache);

}  // namespace kvc::tools
