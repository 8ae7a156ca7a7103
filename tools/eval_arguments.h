#pragma once
// What the subcommands of kvc-eval share in reading their arguments.

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "core/json.h"
#include "core/tokenizer.h"
#include "eval/needle.h"
#include "eval/walk.h"
#include "runtime/session.h"

namespace kvc::tools {

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

// Results as kvc-eval writes them.
[[nodiscard]] Json CellToJson(const eval::NeedleCell& cell);
void AddDivergence(const eval::Divergence& divergence, Json& result);
void PrintCache(const Json& cache);

}  // namespace kvc::tools
