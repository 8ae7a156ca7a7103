#include "core/checkpoint/rope.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "core/base/error.h"
#include "core/checkpoint/config_fields.h"
#include "core/checkpoint/family.h"
#include "core/io/json.h"

namespace kvc {
namespace {

constexpr std::array<std::pair<std::string_view, RopeScaling>, 6> kTypes = {{
    {"default", RopeScaling::kNone},
    {"linear", RopeScaling::kLinear},
    {"dynamic", RopeScaling::kDynamic},
    {"yarn", RopeScaling::kYarn},
    {"llama3", RopeScaling::kLlama3},
    {"longrope", RopeScaling::kLongRope},
}};

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

// The ends of YaRN's ramp, in pairs: frequencies of pairs below the first stay, those of pairs
// above the second are divided by the factor.
std::pair<double, double> YarnRamp(const RopeConfig& rope, double width) {
  const double original = static_cast<double>(rope.original_context);
  const auto pair_of = [&](double turns) {  // that makes so many turns in the original context
    return width * std::log(original / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(rope.theta));
  };
  double low = pair_of(rope.beta_fast);
  double high = pair_of(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, width - 1.0);
  return {low, high == low ? high + 0.001 : high};  // transformers' guard, too
}

double YarnFrequency(const RopeConfig& rope, double width, double pair, double frequency) {
  const auto [low, high] = YarnRamp(rope, width);
  const double divided = std::clamp((pair - low) / (high - low), 0.0, 1.0);
  return frequency / rope.factor * divided + frequency * (1.0 - divided);
}

// The base that a sequence of `length` tokens has with dynamic NTK scaling.
double BaseOf(const RopeConfig& rope, double width, int64_t length) {
  if (rope.scaling != RopeScaling::kDynamic || length <= rope.original_context) return rope.theta;
  const double ratio = static_cast<double>(length) / static_cast<double>(rope.original_context);
  return rope.theta * std::pow(rope.factor * ratio - (rope.factor - 1.0), width / (width - 2.0));
}

double YarnScale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

// Reads `key`, which counts as absent where it is null or 0.
double GetNonZero(const Json& object, const char* key, const std::string& origin, double fallback) {
  const double value = GetDouble(object, key, origin, 0.0);
  return value == 0.0 ? fallback : GetPositive(object, key, origin);
}

// The kinds of rotation that transformers can name, of the object that counts.
struct Reader {
  const Json& config;   // config.json
  const Json& scaling;  // rope_scaling or rope_parameters
  const std::string& origin;
  RopeSizes sizes;

  [[nodiscard]] double ContextRatio(const RopeConfig& rope) const {
    return static_cast<double>(sizes.context_length) / static_cast<double>(rope.original_context);
  }

  void ReadOriginalContext(RopeConfig& rope) const {
    constexpr char kKey[] = "original_max_position_embeddings";
    const Json& holder = FindSet(config, kKey) != nullptr ? config : scaling;
    rope.original_context = GetSize(holder, kKey, origin, sizes.context_length);
  }

  void ReadLlama3(RopeConfig& rope) const {
    rope.factor = GetPositive(scaling, "factor", origin);
    rope.low_freq_factor = GetPositive(scaling, "low_freq_factor", origin);
    rope.high_freq_factor = GetPositive(scaling, "high_freq_factor", origin);
    KVC_CHECK(rope.high_freq_factor > rope.low_freq_factor, kBadInput,
              "{}: expected high_freq_factor > low_freq_factor, got {} and {}", origin,
              rope.high_freq_factor, rope.low_freq_factor);
  }

  void ReadYarn(RopeConfig& rope) const {
    // A factor that is there and null stands for the ratio of the contexts.
    const bool ratio = scaling.contains("factor") && scaling["factor"].is_null();
    rope.factor = ratio ? ContextRatio(rope) : GetPositive(scaling, "factor", origin);
    rope.beta_fast = GetNonZero(scaling, "beta_fast", origin, 32.0);
    rope.beta_slow = GetNonZero(scaling, "beta_slow", origin, 1.0);
    rope.truncate = GetBool(scaling, "truncate", origin, true);
    const double mscale = GetNonZero(scaling, "mscale", origin, 0.0);
    const double all = GetNonZero(scaling, "mscale_all_dim", origin, 0.0);
    const bool both = mscale > 0.0 && all > 0.0;
    rope.attention_factor =
        GetPositive(scaling, "attention_factor", origin,
                    both ? YarnScale(rope.factor, mscale) / YarnScale(rope.factor, all)
                         : YarnScale(rope.factor, 1.0));
    KVC_CHECK(rope.theta > 1.0, kBadInput, "{}: rope_theta: expected more than 1 with yarn, got {}",
              origin, rope.theta);
  }

  [[nodiscard]] std::vector<double> ReadFactors(const RopeConfig& rope, const char* key) const {
    const int64_t pairs = RotaryWidth(rope, sizes.head_width) / 2;
    std::vector<double> factors;
    for (const Json& factor : GetArray(scaling, key, origin)) {
      const double value = factor.is_number() ? factor.get<double>() : 0.0;
      KVC_CHECK(std::isfinite(value) && value > 0.0, kBadInput,
                "{}: {}: expected positive numbers, got {}", origin, key,
                factor.is_structured() ? "a nested value" : factor.dump());
      factors.push_back(value);
    }
    KVC_CHECK(std::ssize(factors) == pairs, kBadInput,
              "{}: {}: expected one number for each of {} pairs of a head, got {}", origin, key,
              pairs, factors.size());
    return factors;
  }

  void ReadLongRope(RopeConfig& rope) const {
    rope.short_factors = ReadFactors(rope, "short_factor");
    rope.long_factors = ReadFactors(rope, "long_factor");
    rope.factor = GetPositive(scaling, "factor", origin, ContextRatio(rope));
    const double original = std::log(static_cast<double>(rope.original_context));
    rope.attention_factor =
        GetPositive(scaling, "attention_factor", origin,
                    rope.factor <= 1.0 ? 1.0 : std::sqrt(1.0 + std::log(rope.factor) / original));
  }
};

void ReadShare(const Json& config,
               const Json& scaling,
               const std::string& origin,
               const FamilyFacts& facts,
               RopeConfig& rope) {
  constexpr char kKey[] = "partial_rotary_factor";
  const double beside = GetPositive(config, kKey, origin, facts.rotary_share);
  rope.rotary_share = GetPositive(scaling, kKey, origin, beside);
  KVC_CHECK(rope.rotary_share <= 1.0, kBadInput, "{}: {}: expected at most 1, got {}", origin, kKey,
            rope.rotary_share);
  if (facts.partial_rotary || rope.rotary_share == 1.0) return;
  // transformers reads the key in the rotations that scale something, and fails there: its
  // attention of these families rotates whole heads.
  KVC_CHECK(rope.scaling == RopeScaling::kNone, kUnsupported,
            "{}: {}: expected 1, since {} rotates whole heads, got {}", origin, kKey, facts.name,
            rope.rotary_share);
  rope.rotary_share = 1.0;
}

RopeScaling ReadType(const Json& scaling, const std::string& origin) {
  for (const char* kind : {"full_attention", "sliding_attention"}) {
    KVC_CHECK(FindSet(scaling, kind) == nullptr, kUnsupported,
              "{}: {}: expected one rotation for all layers, got one for each kind", origin, kind);
  }
  const std::string type =
      GetString(scaling, "rope_type", origin, GetString(scaling, "type", origin, "default"));
  for (const auto& [name, scaling_type] : kTypes) {
    if (name == type) return scaling_type;
  }
  KVC_THROW(
      kUnsupported,
      "{}: expected the rope type default, linear, dynamic, yarn, llama3 or longrope, got \"{}\"",
      origin, type);
}

}  // namespace

RopeConfig ParseRope(const Json& config,
                     const std::string& origin,
                     const FamilyFacts& facts,
                     const RopeSizes& sizes) {
  RopeConfig rope;
  const Json* scaling_set = FindSet(config, "rope_scaling");
  const bool old = scaling_set != nullptr && !scaling_set->empty();
  const char* key = old ? "rope_scaling" : "rope_parameters";
  const Json none = Json::object();
  const bool given = FindSet(config, key) != nullptr;
  const Json& scaling = given ? GetObject(config, key, origin) : none;
  const std::string place = given ? origin + ": " + key : origin;
  rope.theta = GetPositive(scaling, "rope_theta", place,
                           GetPositive(config, "rope_theta", origin, facts.theta));
  rope.scaling = ReadType(scaling, place);
  ReadShare(config, scaling, place, facts, rope);
  (void)RotaryWidth(rope, sizes.head_width);
  const Reader reader = {config, scaling, place, sizes};
  switch (rope.scaling) {
    case RopeScaling::kNone:
      break;
    case RopeScaling::kLinear:
      rope.factor = GetPositive(scaling, "factor", place);
      break;
    case RopeScaling::kDynamic:
      rope.factor = GetPositive(scaling, "factor", place);
      rope.original_context = sizes.context_length;
      break;
    case RopeScaling::kLlama3:
      reader.ReadOriginalContext(rope);
      reader.ReadLlama3(rope);
      break;
    case RopeScaling::kYarn:
      reader.ReadOriginalContext(rope);
      reader.ReadYarn(rope);
      break;
    case RopeScaling::kLongRope:
      reader.ReadOriginalContext(rope);
      reader.ReadLongRope(rope);
      break;
  }
  return rope;
}

int64_t RotaryWidth(const RopeConfig& rope, int64_t head_width) {
  const auto width = static_cast<int64_t>(static_cast<double>(head_width) * rope.rotary_share);
  KVC_CHECK(width > 0 && width % 2 == 0 && width <= head_width, kBadShape,
            "rope: expected an even number of rotated dimensions, got {} of a head of {}", width,
            head_width);
  return width;
}

bool DependsOnLength(const RopeConfig& rope) {
  return rope.scaling == RopeScaling::kDynamic || rope.scaling == RopeScaling::kLongRope;
}

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                           int64_t head_width,
                                           int64_t length) {
  const int64_t rotary = RotaryWidth(rope, head_width);
  const auto width = static_cast<double>(rotary);
  const double base = BaseOf(rope, width, length);
  std::vector<double> frequencies(static_cast<size_t>(rotary / 2));  // [r/2]
  for (size_t j = 0; j < frequencies.size(); ++j) {
    const auto pair = static_cast<double>(j);
    double frequency = std::pow(base, -2.0 * pair / width);
    switch (rope.scaling) {
      case RopeScaling::kNone:
      case RopeScaling::kDynamic:
        break;
      case RopeScaling::kLinear:
        frequency /= rope.factor;
        break;
      case RopeScaling::kLlama3:
        frequency = Llama3Frequency(rope, frequency);
        break;
      case RopeScaling::kYarn:
        frequency = YarnFrequency(rope, width, pair, frequency);
        break;
      case RopeScaling::kLongRope:
        frequency /= (length > rope.original_context ? rope.long_factors : rope.short_factors)[j];
        break;
    }
    frequencies[j] = frequency;
  }
  return frequencies;
}

}  // namespace kvc
