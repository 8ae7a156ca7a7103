#pragma once
// What kvc-factorize prints for people.

#include "core/io/json_fwd.h"

namespace kvc::tools {

// A finished factorization, or the plan that --dry-run makes, with its tables.
void PrintFactorization(const Json& result);

}  // namespace kvc::tools
