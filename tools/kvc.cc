// kvc: runs recipes of several commands, and makes reports of their results.

#include <CLI/CLI.hpp>

#include "tools/recipe_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Runs recipes of the other commands and reports their results");
  CommonOptions common;
  AddCommonOptions(app, common,
                   "  kvc run examples/recipes/bundled.json -o out\n"
                   "  kvc report out");
  app.fallthrough();
  RunRecipeOptions recipe;
  CLI::App* run = app.add_subcommand("run", "All stages of a recipe; keeps what is still true");
  AddRunRecipeOptions(*run, recipe);
  ReportOptions report;
  AddReportOptions(
      *app.add_subcommand("report", "Tables of the results in a folder, and report.html"), report);
  app.require_subcommand(1);
  return RunCommand(argc, argv, "kvc", app, common, [&] {
    return run->parsed() ? RunRecipeCommand(recipe, common) : RunReport(report, common);
  });
}
