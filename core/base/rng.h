#pragma once
// A small random generator whose numbers are the same on every machine (std distributions are not).
// It is xoshiro256++ ([Xoshiro]) seeded by splitmix64. One object serves one thread.

#include <cmath>
#include <cstdint>
#include <iterator>
#include <numbers>
#include <utility>
#include <vector>

namespace kvc {

class Rng {
 public:
  explicit Rng(uint64_t seed) {
    for (uint64_t& word : state_) {
      seed += 0x9e3779b97f4a7c15ULL;
      uint64_t z = seed;
      z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
      z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
      word = z ^ (z >> 31);
    }
  }

  uint64_t NextU64() {
    const uint64_t result = RotateLeft(state_[0] + state_[3], 23) + state_[0];
    const uint64_t t = state_[1] << 17;
    state_[2] ^= state_[0];
    state_[3] ^= state_[1];
    state_[1] ^= state_[2];
    state_[0] ^= state_[3];
    state_[2] ^= t;
    state_[3] = RotateLeft(state_[3], 45);
    return result;
  }
  // A number uniform in [0, 1).
  double NextDouble() { return static_cast<double>(NextU64() >> 11) * 0x1.0p-53; }
  // A number in [0, bound) for bound >= 1, uniform but for the bias of the modulus (below bound /
  // 2^64).
  int64_t NextBelow(int64_t bound) {
    return static_cast<int64_t>(NextU64() % static_cast<uint64_t>(bound));
  }
  // A standard normal number (Box and Muller).
  double NextNormal() {
    const double radius = std::sqrt(-2.0 * std::log(1.0 - NextDouble()));
    return radius * std::cos(2.0 * std::numbers::pi * NextDouble());
  }

 private:
  static uint64_t RotateLeft(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }
  uint64_t state_[4] = {};
};

// Puts `values` in a random order (Fisher and Yates, from the last element down).
template <class T>
void Shuffle(Rng& rng, std::vector<T>& values) {
  for (auto i = std::ssize(values) - 1; i > 0; --i) {
    std::swap(values[i], values[rng.NextBelow(i + 1)]);
  }
}

}  // namespace kvc
