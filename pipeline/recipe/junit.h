#pragma once
// The stages and gates of a recipe's run as a JUnit file, which GitLab, Jenkins and the test
// reports of GitHub Actions show.

#include <string>

#include "pipeline/recipe/recipe_run.h"

namespace kvc::recipe {

// Returns the file of a run: a suite `name` with a test case for each stage, "kept" or "ran" in its
// output, and one for each gate, which fails with value, limit and reason where the gate did.
[[nodiscard]] std::string JUnitXml(const std::string& name, const RecipeResult& result);
// Returns the file of a run that ended with an error: one case with that error.
[[nodiscard]] std::string JUnitXml(const std::string& name, const std::string& error);

}  // namespace kvc::recipe
