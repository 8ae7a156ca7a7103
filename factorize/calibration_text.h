#pragma once
// The text that a factorization learns from, cut into windows of one length: for the closed forms,
// for tuning, and held back for measuring.

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/tokenizer/tokenizer.h"

namespace kvc::factorize {

using Windows = std::vector<std::vector<int32_t>>;

struct TextRequest {
  std::vector<std::filesystem::path> files;
  int64_t window = 512;         // tokens
  int64_t calibration = 16384;  // tokens; at least one window
  int64_t held_back = 4;        // windows
  int64_t tuning = 0;           // tokens; 0: no tuning
};

struct CalibrationText {
  Windows calibration;
  Windows held_back;
  Windows tuning;         // of layers; shares no token with `held_back`
  Windows global_tuning;  // of the whole model: as many, between those of `tuning`
};

// Calibration and held-back windows lie evenly over the whole text; a text too short for all of
// them gives one window in eight, at most, to measuring. Tuning windows of both kinds lie evenly
// over what is not held back, and share no token where that is long enough: a gradient on text that
// layers were tuned on says little. Throws kBadInput, naming the tokens found and needed, when the
// text is shorter than one window, or too short for the tuning tokens.
[[nodiscard]] CalibrationText CutText(const Tokenizer& tokenizer, const TextRequest& request);

}  // namespace kvc::factorize
