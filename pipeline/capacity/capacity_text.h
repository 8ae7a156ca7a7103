#pragma once
// A capacity plan as text for people.

#include <string>

#include "pipeline/capacity/capacity.h"

namespace kvc::capacity {

// Returns lines about the model and a table with a row for each budget, columns aligned.
[[nodiscard]] std::string CapacityText(const Capacity& capacity);

}  // namespace kvc::capacity
