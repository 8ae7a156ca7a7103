#pragma once
// The command kvc-run: runs prompts through a bundle and reports text and counters.

#include <string>
#include <vector>

#include "kernels/sampling.h"
#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct RunOptions {
  std::string bundle;
  std::vector<std::string> prompts;
  std::vector<std::string> prompt_files;
  int64_t new_tokens = 64;
  kernels::SamplingOptions sampling;
  std::string budget;  // empty: the manifest's
};

void AddRunOptions(CLI::App& app, RunOptions& options);

// Generates, or with --dry-run returns the sizes of the caches.
[[nodiscard]] CommandResult RunPrompts(const RunOptions& options, const CommonOptions& common);

}  // namespace kvc::tools
