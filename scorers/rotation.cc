#include "scorers/rotation.h"

#include <cmath>
#include <iterator>

namespace kvc::scorers {

MeanRotation AverageRotation(std::span<const double> frequencies,
                             int64_t first,
                             int64_t count,
                             double factor) {
  MeanRotation mean;
  for (const double frequency : frequencies) {
    double cos = 0.0;
    double sin = 0.0;
    for (int64_t p = first; p < first + count; ++p) {
      cos += std::cos(static_cast<double>(p) * frequency);
      sin += std::sin(static_cast<double>(p) * frequency);
    }
    mean.cos.push_back(factor * cos / static_cast<double>(count));
    mean.sin.push_back(factor * sin / static_cast<double>(count));
  }
  return mean;
}

void Rotate(const MeanRotation& rotation, float* x, int64_t stride) {
  const int64_t half = std::ssize(rotation.cos);
  for (int64_t d = 0; d < half; ++d) {
    const double a = x[d * stride];
    const double b = x[(d + half) * stride];
    x[d * stride] = static_cast<float>(a * rotation.cos[d] - b * rotation.sin[d]);
    x[(d + half) * stride] = static_cast<float>(b * rotation.cos[d] + a * rotation.sin[d]);
  }
}

}  // namespace kvc::scorers
