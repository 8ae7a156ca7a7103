#pragma once
// Splits a gradient into what all text asks for and what is due to the window that it was computed
// on: the simple noise scale of [NoiseScale] (its section 2.2), from gradients g_i of single
// windows. E g_i g_j = |G|^2 for i != j and E g_i g_i = |G|^2 + noise, so E g_i g_i / E g_i g_j is
// about the number of windows whose mean has as much of G as of noise. Tuning on far fewer gains
// next to nothing.

#include <cstdint>
#include <optional>
#include <string>

#include "core/io/json_fwd.h"

namespace kvc::factorize {

class GradientNoise {
 public:
  // Adds one step's `count` gradients: the sum of their squares |g_i|^2, and the square of their
  // sum.
  void Add(int64_t count, double sum_of_squares, double square_of_sum);
  // Returns the noise scale in windows; nothing if no two gradients were ever compared, or if they
  // agree in nothing.
  [[nodiscard]] std::optional<double> Windows() const;

  // Returns and restores the saved state. FromJson throws kBadInput naming `origin` for other
  // fields.
  [[nodiscard]] Json ToJson() const;
  [[nodiscard]] static GradientNoise FromJson(const Json& json, const std::string& origin);

 private:
  double square_ = 0.0;   // sum of g_i g_i
  double product_ = 0.0;  // sum of g_i g_j, i != j in one step
  int64_t squares_ = 0;
  int64_t products_ = 0;
};

}  // namespace kvc::factorize
