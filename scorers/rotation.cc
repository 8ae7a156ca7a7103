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

namespace {
constexpr int64_t kBlock = 32;
}  // namespace

RotationTable::RotationTable(std::span<const double> frequencies,
                             int64_t first,
                             int64_t count,
                             double factor)
    : first_(first) {
  for (int64_t p = 0; p < count; p += kBlock) {
    blocks_.push_back(AverageRotation(frequencies, first + p, 1, factor));
  }
  for (int64_t p = 0; p < kBlock; ++p) places_.push_back(AverageRotation(frequencies, p, 1));
}

MeanRotation RotationTable::At(int64_t position) const {
  const MeanRotation& block = blocks_[static_cast<size_t>((position - first_) / kBlock)];
  const MeanRotation& place = places_[static_cast<size_t>((position - first_) % kBlock)];
  MeanRotation both;
  for (size_t d = 0; d < block.cos.size(); ++d) {
    both.cos.push_back(block.cos[d] * place.cos[d] - block.sin[d] * place.sin[d]);
    both.sin.push_back(block.sin[d] * place.cos[d] + block.cos[d] * place.sin[d]);
  }
  return both;
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
