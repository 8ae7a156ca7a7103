#pragma once
// What a measurement is asked for, read from files and settled before any token runs, and its
// results as JSON: shared by kvc-eval's commands and by what compares policies.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/base/thread_pool.h"
#include "core/io/json_fwd.h"
#include "core/tokenizer/tokenizer.h"
#include "eval/compare/answers.h"
#include "eval/compare/needle.h"
#include "eval/compare/walk.h"
#include "eval/tasks/task_prompt.h"
#include "runtime/session.h"

namespace kvc::eval {

// A bundle with everything that runs it. The pool must outlive the session.
struct LoadedBundle {
  std::shared_ptr<const runtime::Bundle> bundle;
  std::unique_ptr<runtime::Session> session;
};
[[nodiscard]] LoadedBundle LoadBundle(const std::string& directory, ThreadPool& pool);

// Documents of all files, in order.
[[nodiscard]] std::vector<std::string> ReadAll(const std::vector<std::string>& files);
// --decode-policy reallocate|append
[[nodiscard]] runtime::DecodePolicy DecodePolicyFromName(const std::string& name);

// The needle grid: its options but --haystack and the number of samples, which commands name
// themselves.
struct NeedleArguments {
  std::string haystack;
  std::vector<std::string> lengths;
  std::string question = "before";
  NeedleOptions options;
};
[[nodiscard]] NeedleOptions ToNeedleOptions(const NeedleArguments& args,
                                            runtime::DecodePolicy policy,
                                            uint64_t seed);
// The prompts of the grid in the haystack's documents.
[[nodiscard]] std::vector<NeedleCell> PlanCells(const NeedleArguments& args,
                                                const NeedleOptions& options,
                                                const Tokenizer& tokenizer);

// --lengths
[[nodiscard]] std::vector<int64_t> ParseLengths(const std::vector<std::string>& lengths);

// RULER-style tasks: their options but haystack, lengths and samples.
struct RulerArguments {
  std::vector<std::string> tasks;  // empty: all
  std::vector<std::string> lengths;
  int64_t samples = 5;
};
[[nodiscard]] std::vector<TaskPrompt> PlanRulerPrompts(const RulerArguments& args,
                                                       const std::string& haystack,
                                                       uint64_t seed,
                                                       const Tokenizer& tokenizer);

// Results as kvc-eval writes them.
[[nodiscard]] Json CellToJson(const NeedleCell& cell);
[[nodiscard]] Json CellsToJson(const std::vector<TaskCell>& cells);
void AddDivergence(const Divergence& divergence, Json& result);

}  // namespace kvc::eval
