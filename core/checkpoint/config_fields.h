#pragma once
// Fields of config.json with the checks that its readers share. Internal to core/checkpoint.

#include <cstdint>
#include <string>

#include "core/io/json_fwd.h"

namespace kvc {

// The value under `key`; nullptr when it is missing or null.
[[nodiscard]] const Json* FindSet(const Json& config, const char* key);

// A size in 1..2^31 - 1, so that the product of two fits 63 bits. Throws kBadInput.
[[nodiscard]] int64_t GetSize(const Json& config, const char* key, const std::string& origin);
[[nodiscard]] int64_t GetSize(const Json& config,
                              const char* key,
                              const std::string& origin,
                              int64_t fallback);
// A finite number above 0. Throws kBadInput.
[[nodiscard]] double GetPositive(const Json& object, const char* key, const std::string& origin);
[[nodiscard]] double GetPositive(const Json& object,
                                 const char* key,
                                 const std::string& origin,
                                 double fallback);

}  // namespace kvc
