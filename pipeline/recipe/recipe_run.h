#pragma once
// Runs a recipe (pipeline/recipe/recipe.h) into a folder:
//   OUT/NAME/               what a stage writes
//   OUT/results/NAME.json   what its command printed with --json
//   OUT/stages/NAME.json    the record that says whether the stage is still valid
//   OUT/report.html         tables and charts (pipeline/report/html_report.h)
//
// A stage is kept when its record names the same inputs, and its folder's bytes and its result are
// those recorded. The inputs are identified by a SHA-256 over kvc's version, the command, its
// arguments and options, the bytes of every input file and of every folder of another stage that it
// reads, and the seed. The numbers of threads and ranks, and the paths of inputs, do not count.
//
// No file of the user's is lost: the contents of a stage's place are replaced only if its record
// says, file by file, that a run of this folder made them, or with `force`; an input of the recipe
// is never replaced. Only one run at a time writes a folder.

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/base/progress.h"
#include "core/io/json.h"
#include "pipeline/recipe/recipe.h"

namespace kvc::recipe {

struct RecipeRunOptions {
  std::filesystem::path programs;  // the folder of kvc-factorize and the others
  std::filesystem::path output;
  bool force = false;    // run every stage, replace what was not made here
  bool dry_run = false;  // only say what would be run
  bool quiet = false;
  int threads = 0;
  uint64_t seed = 42;
  std::string device = "auto";
  // Words of a launcher instead of the recipe's; empty ones: none.
  std::optional<std::vector<std::string>> launcher;
};

// What became of a stage.
struct StageOutcome {
  std::string name;
  std::string command;
  std::string line;   // the command with its arguments, after its launcher
  std::string state;  // "kept" or "ran"; in a dry run "kept", "to run", or "to run after NAME" if
                      // an earlier stage decides
  double seconds = 0.0;
};

// A quality gate of a stage.
struct StageGate {
  std::string stage;
  std::string name;
  bool passed = false;
  Json value;  // null: not measured
  Json limit;
  Json record;  // the gate as the command printed it
};

struct RecipeResult {
  std::filesystem::path output;
  std::vector<StageOutcome> stages;
  std::vector<StageGate> gates;
  bool gates_passed = true;
};
// Returns {"output", "stages": [{"name", "command", "line", "state", "seconds"}]} and, if a stage
// had gates, "gates": [each record with its "stage"], "gate": "passed" or "failed".
[[nodiscard]] Json ToJson(const RecipeResult& result);

// Runs a recipe. A failed gate does not end the run. Throws the error of the failing command's exit
// code, naming the stage; kIo for a missing input; kUsage for a folder or file that is not apart
// from the inputs, was made by others, or is being written by another run.
[[nodiscard]] RecipeResult RunRecipe(const Recipe& recipe,
                                     const RecipeRunOptions& options,
                                     Progress& progress);

}  // namespace kvc::recipe
