#pragma once
// Output of kvc-factorize as text on stdout.

#include "factorize/factorization.h"

namespace kvc::tools {

// Prints the plan that --dry-run makes, with its tables.
void PrintFactorization(const factorize::FactorizationPlan& plan);
// Prints a finished factorization.
void PrintFactorization(const factorize::FactorizationResult& result);

}  // namespace kvc::tools
