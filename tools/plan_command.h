#pragma once
// The subcommand `kvc plan MODEL|BUNDLE`: what a cache will take, before anything is converted.

#include <string>
#include <vector>

#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

// Options as they were written.
struct PlanOptions {
  std::string directory;
  std::string context;  // empty: the model's
  int64_t batch = 1;
  std::vector<std::string> budgets;  // none: 100, 50, 25, 12.5 and 6.25 %
  std::string policy = "uniform/snapkv";
  std::string profile;  // empty: none
  std::string memory;
  std::string bandwidth;
  std::string dtype = "auto";
  std::string cache_dtype = "auto";
  std::string reference_length;
  int64_t sinks = 4;
  int64_t window = 32;
};
void AddPlanOptions(CLI::App& app, PlanOptions& options);
// Returns the keys of capacity::ToJson (pipeline/capacity/capacity.h).
[[nodiscard]] CommandResult RunPlan(const PlanOptions& options, const CommonOptions& common);

}  // namespace kvc::tools
