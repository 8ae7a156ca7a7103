#pragma once
// The text that a factorization learns from, cut into windows of one length: windows for the closed
// forms, windows for tuning, and windows held back for measuring.

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

// Cuts the text. Calibration and held-back windows are spread evenly over the whole text; if the
// text is too short for all of them, at most one window in eight is held back. Tuning windows of
// both kinds are spread evenly over what is not held back, and share no token if that is long
// enough, because a gradient on text that the layers were tuned on says little. Throws kBadInput,
// naming the tokens found and needed, when the text is shorter than one window or too short for the
// tuning tokens.
[[nodiscard]] CalibrationText CutText(const Tokenizer& tokenizer, const TextRequest& request);

}  // namespace kvc::factorize
