#pragma once
// A comparison of policies as a table on stdout.

#include "pipeline/choose/comparison.h"

namespace kvc::tools {

void PrintComparison(const choose::Comparison& comparison);

}  // namespace kvc::tools
