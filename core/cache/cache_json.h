#pragma once
// The JSON of a cache, as it stands in manifest.json (docs/formats/manifest.md) and, tier by tier,
// in profiles. Readers name the key that is wrong and start with `origin`; they throw kBadInput for
// a missing, unknown or broken key, kUnsupported for a row format that this version does not know.

#include <string>

#include "core/cache/cache_spec.h"
#include "core/io/json_fwd.h"

namespace kvc {

// Returns a cache's geometry and policy: the value of "cache" in a manifest.
[[nodiscard]] Json CacheToJson(const CacheSpec& spec);
[[nodiscard]] CacheSpec CacheFromJson(const Json& json, const std::string& origin);
// A tier has key_share, value_share, and key_dtype and value_dtype where it has formats of its own.
[[nodiscard]] Json ToJson(const Tier& tier);
[[nodiscard]] Tier TierFromJson(const Json& json, const std::string& origin);
// Returns the row format that `key` names. An unknown one is broken input here, not a wrong option.
[[nodiscard]] RowFormat ReadFormat(const Json& json, const char* key, const std::string& origin);

}  // namespace kvc
