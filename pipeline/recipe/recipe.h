#pragma once
// A recipe: the stages of a pipeline as one JSON file in the format of docs/formats/recipe.md.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace kvc::recipe {

struct Stage {
  std::string name;                    // letters, digits, '-'; "report" and "results" are taken
  std::string command;                 // "kvc-factorize", ..., or "kvc-eval kld"
  std::vector<std::string> arguments;  // as written: $input, @stage, or plain
  std::vector<std::pair<std::string, std::vector<std::string>>> options;  // without "--"; likewise;
                                                                          // no value: a flag
  // Tells whether the stage writes a folder (-o); otherwise its result is what it prints.
  [[nodiscard]] bool writes_folder() const;
  // Tells whether the command takes part in work of several ranks (core/base/ranks.h).
  [[nodiscard]] bool takes_ranks() const;
  // Returns the stages that it names with @, in order, each once.
  [[nodiscard]] std::vector<std::string> needs() const;
};

struct Recipe {
  std::map<std::string, std::filesystem::path> inputs;  // files and folders, absolute
  // The words before the commands that take ranks: {"srun", "-n", "8"}; empty: none.
  std::vector<std::string> launcher;
  std::vector<Stage> stages;
};

// Something in a recipe that is not as docs/formats/recipe.md says.
struct RecipeProblem {
  int64_t line = 0;
  std::string text;  // names the stage and the key
};

// A recipe, as far as it could be read, and all that is wrong with it, in the order of the file.
struct CheckedRecipe {
  Recipe recipe;
  std::vector<RecipeProblem> problems;
};

// Checks a recipe. Paths are relative to the recipe's folder; `replaced` (NAME -> path, relative to
// the working directory) takes precedence over the recipe. What inputs name need not be there.
// Throws kIo and kBadInput for what is no JSON file; kUsage for a replaced input that the recipe
// does not have.
[[nodiscard]] CheckedRecipe CheckRecipe(const std::filesystem::path& file,
                                        const std::map<std::string, std::string>& replaced);
// Reads a recipe. Throws kBadInput naming file and line of the first problem.
[[nodiscard]] Recipe ReadRecipe(const std::filesystem::path& file,
                                const std::map<std::string, std::string>& replaced);

}  // namespace kvc::recipe
