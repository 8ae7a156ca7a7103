#pragma once
// The name of the JSON type, for headers that pass it on without looking inside.

#include <nlohmann/json_fwd.hpp>

namespace kvc {

// Objects keep the order in which keys were inserted, so that the same inputs write the same bytes.
using Json = nlohmann::ordered_json;

}  // namespace kvc
