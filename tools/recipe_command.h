#pragma once
// The subcommands of `kvc`: `run RECIPE.json` and `report DIR [DIR]`.

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tools/common_options.h"

namespace CLI {
class App;
}

namespace kvc::tools {

struct RunRecipeOptions {
  std::string recipe;
  std::string output;  // empty: the recipe's name without .json, in the working directory
  std::vector<std::string> sets;  // NAME=PATH
  bool force = false;
  bool check = false;
  std::string junit;                    // empty: none
  std::optional<std::string> launcher;  // none: the recipe's; "none": no launcher
};
void AddRunRecipeOptions(CLI::App& app, RunRecipeOptions& options);
// Runs a recipe. Its keys are those of pipeline/recipe/recipe_run.h and "report", the path of
// report.html; with --check, "problems" alone.
[[nodiscard]] CommandResult RunRecipeCommand(const RunRecipeOptions& options,
                                             const CommonOptions& common);

struct ReportOptions {
  std::vector<std::string> directories;  // one, or two to compare
  std::string html;  // empty: DIR/report.html, of two comparison.html in the working directory
};
void AddReportOptions(CLI::App& app, ReportOptions& options);
// Returns {"report": Markdown, "html": path}.
[[nodiscard]] CommandResult RunReport(const ReportOptions& options, const CommonOptions& common);

}  // namespace kvc::tools
