#pragma once
// A recipe: the stages of a pipeline as one JSON file in the format of docs/formats/recipe.md.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc::recipe {

struct Stage {
  std::string name;                    // letters, digits, '-'; "report" and "results" are taken
  std::string command;                 // "kvc-factorize", ..., or "kvc-eval kld"
  std::vector<std::string> arguments;  // as written: $input, @stage, or plain
  std::vector<std::pair<std::string, std::vector<std::string>>> options;  // without "--"; likewise;
                                                                          // no value: a flag
  // Tells whether the stage writes a folder (-o); otherwise its result is what it prints.
  [[nodiscard]] bool writes_folder() const;
  // Returns the stages that it names with @, in order, each once.
  [[nodiscard]] std::vector<std::string> needs() const;
};

struct Recipe {
  std::map<std::string, std::filesystem::path> inputs;  // files and folders, absolute
  std::vector<Stage> stages;
};

// Reads a recipe. Paths are relative to the recipe's folder; `replaced` (NAME -> path, relative to
// the working directory) takes precedence over the recipe. Throws kBadInput naming the stage and
// the key that is missing, unknown or wrong; kUsage for a replaced input that the recipe does not
// have.
[[nodiscard]] Recipe ReadRecipe(const std::filesystem::path& file,
                                const std::map<std::string, std::string>& replaced);

}  // namespace kvc::recipe
