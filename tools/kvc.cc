// kvc: plans caches, runs recipes of several commands, and makes reports of their results.

#include <CLI/CLI.hpp>

#include "tools/plan_command.h"
#include "tools/recipe_command.h"

int main(int argc, char** argv) {
  using namespace kvc::tools;  // NOLINT(google-build-using-namespace)
  CLI::App app("Plans caches, runs recipes of the other commands and reports their results");
  CommonOptions common;
  AddCommonOptions(app, common,
                   "  kvc plan model --context 128k --batch 8 --memory 80GiB\n"
                   "  kvc run examples/recipes/bundled.json -o out\n"
                   "  kvc report out\n"
                   "  kvc report before after -o change.html");
  app.fallthrough();
  PlanOptions planned;
  CLI::App* plan = app.add_subcommand("plan", "What a cache takes at several budgets");
  AddPlanOptions(*plan, planned);
  RunRecipeOptions recipe;
  CLI::App* run = app.add_subcommand("run", "All stages of a recipe; keeps what is still true");
  AddRunRecipeOptions(*run, recipe);
  ReportOptions report;
  AddReportOptions(
      *app.add_subcommand("report",
                          "Tables of the results in a folder, or of two, and a page with charts"),
      report);
  app.require_subcommand(1);
  return RunCommand(argc, argv, "kvc", app, common, [&] {
    if (plan->parsed()) return RunPlan(planned, common);
    return run->parsed() ? RunRecipeCommand(recipe, common) : RunReport(report, common);
  });
}
