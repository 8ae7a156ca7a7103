#include "tools/recipe_command.h"

#include <cstdio>
#include <functional>
#include <iterator>
#include <map>
#include <sstream>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "core/base/error.h"
#include "core/io/files.h"
#include "core/io/json.h"
#include "core/io/output_directory.h"
#include "pipeline/recipe/child_process.h"
#include "pipeline/recipe/junit.h"
#include "pipeline/recipe/recipe.h"
#include "pipeline/recipe/recipe_run.h"
#include "pipeline/report/html_report.h"
#include "pipeline/report/report.h"
#include "pipeline/report/results.h"

namespace kvc::tools {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> ParseSets(const std::vector<std::string>& sets) {
  std::map<std::string, std::string> replaced;
  for (const std::string& set : sets) {
    const size_t equals = set.find('=');
    KVC_CHECK(equals != std::string::npos && equals > 0 && equals + 1 < set.size(), kUsage,
              "--set: expected NAME=PATH, got \"{}\"", set);
    replaced[set.substr(0, equals)] = set.substr(equals + 1);
  }
  return replaced;
}

// Returns the words of --launcher; none of "none".
std::vector<std::string> LauncherWords(const std::string& text) {
  std::istringstream stream(text);
  std::vector<std::string> words(std::istream_iterator<std::string>(stream), {});
  KVC_CHECK(!words.empty(), kUsage,
            "--launcher: expected words like \"srun -n 8\", or none, got \"{}\"", text);
  if (words == std::vector<std::string>{"none"}) words.clear();
  return words;
}

std::vector<fs::path> FilesIn(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  return files;
}

// Returns a number as people read it; what is none, as it stands.
std::string NumberText(const Json& value) {
  return value.is_number() ? fmt::format("{:.5g}", value.get<double>()) : value.dump();
}

// Prints the stages, with their lines in a dry run, where `report` is empty.
void Print(const recipe::RecipeResult& result, const std::string& report) {
  for (const recipe::StageOutcome& stage : result.stages) {
    std::printf("%-20s %-18s %-24s %8.1f s\n", stage.name.c_str(), stage.command.c_str(),
                stage.state.c_str(), stage.seconds);
    if (report.empty()) std::printf("    %s\n", stage.line.c_str());
  }
  for (const recipe::StageGate& gate : result.gates) {
    std::printf("gate %s: %s %s: %s, limit %s\n", gate.stage.c_str(), gate.name.c_str(),
                gate.passed ? "passed" : "FAILED", NumberText(gate.value).c_str(),
                NumberText(gate.limit).c_str());
  }
  if (!report.empty()) std::printf("report: %s\n", report.c_str());
}

CommandResult CheckRecipeFile(const RunRecipeOptions& options) {
  const auto problems = recipe::CheckRecipe(options.recipe, ParseSets(options.sets)).problems;
  Json list = Json::array();
  for (const auto& problem : problems) {
    list.push_back({{"line", problem.line}, {"text", problem.text}});
  }
  CommandResult result{{{"recipe", options.recipe}, {"problems", list}},
                       [problems, file = options.recipe] {
                         for (const auto& problem : problems) {
                           std::printf("%s:%lld: %s\n", file.c_str(),
                                       static_cast<long long>(problem.line), problem.text.c_str());
                         }
                         if (problems.empty()) std::printf("%s: no problem\n", file.c_str());
                       }};
  if (!problems.empty()) result.failed = ErrorKind::kBadInput;
  return result;
}

// Runs `run` and writes the JUnit file of what came of it.
recipe::RecipeResult WithJUnit(const RunRecipeOptions& options,
                               const recipe::Recipe& recipe,
                               const std::function<recipe::RecipeResult()>& run) {
  if (options.junit.empty()) return run();
  std::vector<fs::path> inputs = {options.recipe};
  for (const auto& [name, path] : recipe.inputs) inputs.push_back(path);
  CheckOutputApart(options.junit, inputs);
  const std::string name = fs::path(options.recipe).stem().string();
  const auto write = [&](const std::string& xml) {
    fs::create_directories(fs::absolute(options.junit).parent_path());
    WriteFile(options.junit, xml);
  };
  try {
    recipe::RecipeResult result = run();
    write(recipe::JUnitXml(name, result));
    return result;
  } catch (const Error& error) {
    write(recipe::JUnitXml(name, std::string(error.what())));
    throw;
  }
}

}  // namespace

void AddRunRecipeOptions(CLI::App& app, RunRecipeOptions& options) {
  app.add_option("recipe", options.recipe, "Recipe: docs/formats/recipe.md")->required();
  app.add_option("-o,--out,--output", options.output,
                 "Folder for everything that is made; what is there and still true is kept; "
                 "default: the recipe's name");
  app.add_option("--set", options.sets, "NAME=PATH instead of an input's path; repeatable");
  app.add_flag("--force", options.force, "Run every stage, and replace what stands in its place");
  app.add_flag("--check", options.check,
               "Only say what is wrong with the recipe, and in which line");
  app.add_option("--launcher", options.launcher,
                 "Words before the commands that take ranks, \"mpirun -n 4\", instead of the "
                 "recipe's; none: no launcher");
  app.add_option("--junit", options.junit, "JUnit file to write, of stages and quality gates");
}

CommandResult RunRecipeCommand(const RunRecipeOptions& options, const CommonOptions& common) {
  (void)CheckCommonOptions(common);
  if (options.check) return CheckRecipeFile(options);
  const recipe::Recipe recipe = recipe::ReadRecipe(options.recipe, ParseSets(options.sets));
  recipe::RecipeRunOptions run;
  run.programs = recipe::ProgramFolder();
  run.output = fs::absolute(options.output.empty() ? fs::path(options.recipe).stem()
                                                   : fs::path(options.output))
                   .lexically_normal();
  run.force = options.force;
  run.dry_run = common.dry_run;
  run.quiet = common.quiet;
  run.threads = common.threads;
  run.seed = common.seed;
  run.device = common.device;
  if (options.launcher) run.launcher = LauncherWords(*options.launcher);
  const fs::path report = run.output / "report.html";
  KVC_CHECK(run.force || !fs::exists(report) || report::IsReport(report), kUsage,
            "{}: expected a report that kvc wrote, got another file; use --force to replace it, or "
            "another -o",
            report.string());
  const recipe::RecipeResult ran = WithJUnit(
      options, recipe, [&] { return recipe::RunRecipe(recipe, run, *MakeProgress(common)); });
  CommandResult result{ToJson(ran), {}, ran.gates_passed};
  if (!common.dry_run) {
    WriteFile(report, report::HtmlReport(run.output));
    result.json["report"] = report.string();
  }
  result.print = [ran, report = common.dry_run ? "" : report.string()] { Print(ran, report); };
  return result;
}

void AddReportOptions(CLI::App& app, ReportOptions& options) {
  app.add_option("dir", options.directories,
                 "Folder of NAME.json files, or of a recipe's run; two are compared")
      ->required()
      ->expected(1, 2);
  app.add_option("-o,--html", options.html,
                 "HTML file to write; default: DIR/report.html, of two comparison.html here");
}

CommandResult RunReport(const ReportOptions& options, const CommonOptions& common) {
  const bool two = options.directories.size() == 2;
  fs::path html = options.html;
  if (html.empty())
    html = two ? "comparison.html" : fs::path(options.directories[0]) / "report.html";
  for (const fs::path directory : options.directories) {
    KVC_CHECK(fs::is_directory(directory), kIo,
              "{}: expected a folder of results, got none; give the folder that the report is in",
              directory.string());
    CheckOutputApart(html, FilesIn(report::ResultsFolder(directory)));
  }
  KVC_CHECK(!options.html.empty() || !two || !fs::exists(html) || report::IsReport(html), kUsage,
            "{}: expected a report that kvc wrote, got another file; name one by -o",
            html.string());
  const fs::path a = options.directories.front();
  const fs::path b = options.directories.back();
  const std::string tables =
      two ? report::ComparisonTables(a, b) : report::ReportTables(report::ResultsFolder(a));
  if (!common.dry_run) WriteFile(html, two ? report::HtmlComparison(a, b) : report::HtmlReport(a));
  return {{{"report", tables}, {"html", html.string()}}, [tables] { std::cout << tables; }};
}

}  // namespace kvc::tools
