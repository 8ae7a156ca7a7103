#pragma once
// Running a recipe (pipeline/recipe/recipe.h) into a folder:
//   OUT/NAME/               what a stage writes
//   OUT/results/NAME.json   what its command printed with --json
//   OUT/stages/NAME.json    the record that says whether the stage is still true
//   OUT/report.html         tables and charts (pipeline/report/html_report.h)
//
// A stage is kept when its record names the same inputs: SHA-256 over kvc's version, the command,
// its arguments and options, the bytes of every input file and of every folder of another stage
// that it reads, and the seed; and when its folder's bytes and its result are those recorded. The
// number of threads and the paths of inputs do not count.
//
// Nothing of the user's is lost: what stands in a stage's place is replaced only where its record
// says that a run of this folder made it, file by file, or with `force`; an input of the recipe
// never. One run at a time writes a folder.

#include <filesystem>
#include <map>
#include <string>

#include "core/base/progress.h"
#include "core/io/json_fwd.h"
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
};

// {"output", "stages": [{"name", "command", "line", "state", "seconds"}], "gate" where a stage had
// gates, "gates": [each with its "stage"]}. state: "kept" or "ran"; with a dry run "kept", "to
// run", or "to run after NAME" where an earlier stage decides. A failed gate does not end the run.
// Throws what the failing command's exit code says, naming the stage; kIo for an input that is not
// there; kUsage for a folder or file that is not apart from the inputs, was made by others, or is
// being written by another run.
[[nodiscard]] Json RunRecipe(const Recipe& recipe,
                             const RecipeRunOptions& options,
                             Progress& progress);

}  // namespace kvc::recipe
