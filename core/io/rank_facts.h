#pragma once
// Settings in JSON as facts that ranks must agree on (core/base/ranks.h).

#include "core/base/ranks.h"
#include "core/io/json_fwd.h"

namespace kvc {

// Returns a fact for every member of an object: its key and its value as JSON.
[[nodiscard]] RankFacts FactsOf(const Json& object);

}  // namespace kvc
