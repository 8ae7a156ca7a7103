#pragma once
// The rotary position embedding of a model, half-split as Hugging Face stores it: dimension j is
// paired with j + D/2, and the pair is turned by position * inverse_frequency[j].

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc {

enum class RopeScaling { kNone, kLinear, kLlama3 };
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  int64_t original_context = 0;   // kLlama3
};

// Reads the rotary embedding from config.json in either spelling:
//   transformers 4: rope_theta beside rope_scaling {rope_type or type, factor, ...} or null
//   transformers 5: rope_parameters {rope_theta, rope_type, factor, ...}
// Throws kUnsupported for another rope type or a partial rotation, kBadInput for numbers out of
// range.
[[nodiscard]] RopeConfig ParseRope(const Json& config, const std::string& origin);

// The inverse frequencies [D/2] after scaling, in double; the user rounds them. Throws kBadShape
// for an odd width.
[[nodiscard]] std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                                         int64_t head_width);

}  // namespace kvc
