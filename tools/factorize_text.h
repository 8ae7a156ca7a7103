#pragma once
// Text output of kvc-factorize.

#include "core/io/json_fwd.h"

namespace kvc::tools {

// Prints a finished factorization, or the plan that --dry-run makes, with its tables.
void PrintFactorization(const Json& result);

}  // namespace kvc::tools
