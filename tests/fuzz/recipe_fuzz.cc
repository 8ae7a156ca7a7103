// A recipe.

#include "pipeline/recipe/recipe.h"
#include "tests/fuzz/fuzz_target.h"

KVC_FUZZ_TARGET(recipe) {
  (void)kvc::recipe::ReadRecipe(kvc::fuzz::WrittenFile("recipe.json", bytes), {});
}
