#pragma once
// The rotary position embedding of a model, half-split as Hugging Face stores it: of a head's first
// r dimensions (its rotary width), dimension j is paired with j + r/2, and the pair is turned by
// position * inverse_frequency[j]. The dimensions from r on stay as they are.

#include <cstdint>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"

namespace kvc {

struct FamilyFacts;

enum class RopeScaling {
  kNone,
  kLinear,    // all frequencies divided by `factor`
  kLlama3,    // Llama 3.1: the low ones divided, a band blended
  kDynamic,   // NTK: beyond `original_context` the base grows with the sequence's length
  kYarn,      // NTK by parts: a ramp between divided and original frequencies
  kLongRope,  // one divisor for each pair: short_factors up to original_context, else long_factors
};
struct RopeConfig {
  double theta = 10000.0;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double low_freq_factor = 1.0;   // kLlama3
  double high_freq_factor = 4.0;  // kLlama3
  int64_t original_context = 0;   // all but kNone and kLinear
  double beta_fast = 32.0;        // kYarn: turns in original_context from which nothing is divided,
  double beta_slow = 1.0;         // and up to which everything is
  bool truncate = true;           // kYarn: the ramp's ends are whole numbers of pairs
  // kLongRope [r/2]
  std::vector<double> short_factors = {};
  std::vector<double> long_factors = {};
  // kYarn, kLongRope: cosines and sines are multiplied by it, and logits by its square.
  double attention_factor = 1.0;
  double rotary_share = 1.0;  // r/D
};

// The sizes that a rotation depends on.
struct RopeSizes {
  int64_t head_width = 0;      // D
  int64_t context_length = 0;  // max_position_embeddings
};
// Reads the rotary embedding from config.json in either spelling, with transformers 5's precedence:
//   rope_scaling, unless it is null or empty, and else rope_parameters, is the one that counts;
//   rope_theta and partial_rotary_factor inside it, else beside it, else the family's default;
//   original_max_position_embeddings beside it, else inside it, else the context length;
//   rope_type, else type, else "default".
// A share of a head is ignored in a family that rotates whole heads, as transformers does. Throws
// kUnsupported for another rope type, for one rotation for each kind of layer, and for such a share
// beside a type that scales, where transformers fails too; kBadInput for missing numbers and those
// out of range.
[[nodiscard]] RopeConfig ParseRope(const Json& config,
                                   const std::string& origin,
                                   const FamilyFacts& facts,
                                   const RopeSizes& sizes);

// Returns r, the number of a head's dimensions that are rotated, even and at most D.
[[nodiscard]] int64_t RotaryWidth(const RopeConfig& rope, int64_t head_width);

// Returns true if the frequencies of a sequence change where it grows beyond `original_context`.
[[nodiscard]] bool DependsOnLength(const RopeConfig& rope);

// Returns the inverse frequencies [r/2] after scaling for a sequence of `length` tokens, on which
// kDynamic and kLongRope alone depend; in double, the user rounds them. As in transformers, all
// tokens of one forward pass are turned by the frequencies of its last token's length, and cached
// keys stay as they were turned. Throws kBadShape for an odd width.
[[nodiscard]] std::vector<double> RopeInverseFrequencies(const RopeConfig& rope,
                                                         int64_t head_width,
                                                         int64_t length = 0);

}  // namespace kvc
