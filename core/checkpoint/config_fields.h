#pragma once
// Pieces of reading config.json that its parts share; used only by model_config.cc and its
// siblings.

#include <string>

#include "core/checkpoint/model_config.h"
#include "core/io/json.h"

namespace kvc {

// The value under `key` when it is there and not null, else nullptr.
[[nodiscard]] const Json* FindSet(const Json& config, const char* key);

// A size in 1..2^31 - 1, so that the product of two fits into 63 bits. Throws kBadInput.
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

// The rotary embedding, from either spelling:
//   transformers 4: rope_theta beside rope_scaling {rope_type or type, factor, ...} or null
//   transformers 5: rope_parameters {rope_theta, rope_type, factor, ...}
[[nodiscard]] RopeConfig ParseRope(const Json& config, const std::string& origin);

// The "kvc" block, checked against the model's sizes; full keys when there is none.
[[nodiscard]] KeyFactors ParseKeys(const Json& config,
                                   const ModelConfig& model,
                                   const std::string& origin);

}  // namespace kvc
