#include "core/checkpoint/rope.h"

#include <cmath>
#include <numbers>

#include "core/base/error.h"
#include "core/checkpoint/config_fields.h"
#include "core/io/json.h"

namespace kvc {
namespace {

// Llama 3.1's scaling stretches wavelengths beyond original_context / low_freq_factor by `factor`,
// keeps those below original_context / high_freq_factor, and blends between them.
double Llama3Frequency(const RopeConfig& rope, double frequency) {
  const double original = static_cast<double>(rope.original_context);
  const double wavelength = 2.0 * std::numbers::pi / frequency;
  if (wavelength < original / rope.high_freq_factor) {
    return frequency;
  }
  if (wavelength > original / rope.low_freq_factor) {
    return frequency / rope.factor;
  }
  const double blend = (original / wavelength - rope.low_freq_factor) /
                       (rope.high_freq_factor - rope.low_freq_factor);
  return (1.0 - blend) * frequency / rope.factor + blend * frequency;
}

void ParseLlama3(const Json& scaling, const std::string& origin, RopeConfig& rope) {
  rope.scaling = RopeScaling::kLlama3;
  rope.low_freq_factor = GetPositive(scaling, "low_freq_factor", origin);
  rope.high_freq_factor = GetPositive(scaling, "high_freq_factor", origin);
  rope.original_context = GetSize(scaling, "original_max_position_embeddings", origin);
  KVC_CHECK(rope.high_freq_factor > rope.low_freq_factor, kBadInput,
            "{}: expected high_freq_factor > low_freq_factor, got {} and {}", origin,
            rope.high_freq_factor, rope.low_freq_factor);
}

}  // namespace

RopeConfig ParseRope(const Json& config, const std::string& origin) {
  RopeConfig rope;
  const char* key =
      FindSet(config, "rope_parameters") != nullptr ? "rope_parameters" : "rope_scaling";
  rope.theta = GetPositive(config, "rope_theta", origin, rope.theta);
  if (FindSet(config, key) == nullptr) {
    return rope;
  }
  const Json& scaling = GetObject(config, key, origin);
  const std::string scaling_origin = origin + ": " + key;
  rope.theta = GetPositive(scaling, "rope_theta", scaling_origin, rope.theta);
  KVC_CHECK(GetDouble(scaling, "partial_rotary_factor", scaling_origin, 1.0) == 1.0, kUnsupported,
            "{}: partial_rotary_factor: expected 1, got another share", scaling_origin);
  const std::string type = GetString(scaling, "rope_type", scaling_origin,
                                     GetString(scaling, "type", scaling_origin, "default"));
  if (type == "default") {
    return rope;
  }
  KVC_CHECK(type == "linear" || type == "llama3", kUnsupported,
            "{}: expected the rope type default, linear or llama3, got \"{}\"", scaling_origin,
            type);
  rope.factor = GetPositive(scaling, "factor", scaling_origin);
  if (type == "linear") {
    rope.scaling = RopeScaling::kLinear;
  } else {
    ParseLlama3(scaling, scaling_origin, rope);
  }
  return rope;
}

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_width) {
  KVC_CHECK(head_width > 0 && head_width % 2 == 0, kBadShape,
            "rope: expected an even head width, got {}", head_width);
  std::vector<double> frequencies(static_cast<size_t>(head_width / 2));  // [D/2]
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const double exponent = 2.0 * static_cast<double>(j) / static_cast<double>(head_width);
    double frequency = std::pow(rope.theta, -exponent);
    switch (rope.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        frequency /= rope.factor;
        break;
      case RopeScaling::kLlama3:
        frequency = Llama3Frequency(rope, frequency);
        break;
    }
    frequencies[j] = frequency;
  }
  return frequencies;
}

}  // namespace kvc
