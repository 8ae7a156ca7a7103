#pragma once
// Random factors of a head's keys from latents, on the device and in double.

#include <algorithm>
#include <cmath>
#include <deque>
#include <vector>

#include "kernels/cuda/latent_keys.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

struct LatentShape {
  int32_t width = 0;  // 0: no latents
  int32_t rank = 0;
  int32_t half = -1;  // pairs that turn; -1: all
  bool bias = false, norm = false;
  // The first rows of the matrix are unit vectors, as kvc-export chooses coordinates.
  bool units = false;
};

class LatentCase {
 public:
  static constexpr int32_t kPositions = 1000;
  static constexpr float kEpsilon = 1e-3F;
  struct Key {
    std::vector<double> value, bound;  // [D]
  };

  LatentCase(const LatentShape& shape, Rng& rng) : shape_(shape) {
    std::vector<float> matrix = RandomFloats(rng, int64_t{shape.width} * shape.rank);
    for (float& x : matrix) x /= std::sqrt(static_cast<float>(shape.rank));
    for (int32_t d = 0; shape.units && d < std::min(shape.width, shape.rank); ++d) {
      for (int32_t r = 0; r < shape.rank; ++r) matrix[d * shape.rank + r] = d == r ? 1.0F : 0.0F;
    }
    floats_.emplace_back(DType::kF32, shape.width, shape.rank, 0, matrix);
    floats_.push_back(RandomRows(rng, DType::kF32, 1, shape.width));
    floats_.push_back(RandomRows(rng, DType::kF32, 1, shape.width));
    std::vector<float> cos;
    std::vector<float> sin;
    for (int64_t i = 0; i < int64_t{kPositions} * half(); ++i) {
      const double angle = 6.0 * rng.NextDouble();
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    floats_.emplace_back(DType::kF32, kPositions, half(), 0, cos);
    floats_.emplace_back(DType::kF32, kPositions, half(), 0, sin);
    const std::vector<uint32_t> packed =
        PackLatentKeys({matrix.data(), shape.bias ? floats_[1].values.data() : nullptr,
                        shape.norm ? floats_[2].values.data() : nullptr, shape.rank, shape.rank,
                        shape.width, half()});
    packed_ = std::make_unique<DeviceArray<uint32_t>>(packed);
  }

  [[nodiscard]] int32_t half() const { return shape_.half < 0 ? shape_.width / 2 : shape_.half; }
  [[nodiscard]] LatentKeys view() const {
    LatentKeys keys;
    keys.packed = packed_->data();
    keys.rotation = {static_cast<const float*>(floats_[3].view().data),
                     static_cast<const float*>(floats_[4].view().data), half()};
    keys.rank = shape_.rank;
    keys.width = shape_.width;
    keys.places = static_cast<int32_t>(LatentPlaces(shape_.width, half()));
    keys.norm_epsilon = shape_.norm ? kEpsilon : 0.0F;
    return keys;
  }

  // The key of a latent, `at(r)` for r < rank, and how far float sums and elements as two bf16
  // numbers may be from it.
  template <class At>
  [[nodiscard]] Key KeyOf(int32_t rank, int32_t position, const At& at) const {
    Key key;
    for (int32_t d = 0; d < shape_.width; ++d) {
      double sum = 0.0;
      double magnitude = 0.0;
      for (int32_t r = 0; r < rank; ++r) {
        const double product = at(r) * floats_[0].at(d, r);
        sum += product;
        magnitude += std::abs(product);
      }
      const double bias = shape_.bias ? floats_[1].at(0, d) : 0.0;
      key.value.push_back(sum + bias);
      key.bound.push_back((0x1p-15 + 0x1p-24 * (rank + 2)) * (magnitude + std::abs(bias)));
    }
    if (shape_.norm) Norm(key);
    return Turned(key, position);
  }

 private:
  void Norm(Key& key) const {
    double squares = 0.0;
    double error = 0.0;
    for (int32_t d = 0; d < shape_.width; ++d) {
      squares += key.value[d] * key.value[d];
      error += 2.0 * std::abs(key.value[d]) * key.bound[d] + key.bound[d] * key.bound[d];
    }
    const double mean = squares / shape_.width + static_cast<double>(kEpsilon);
    const double factor = 1.0 / std::sqrt(mean);
    // Of the factor, relative: half of the mean's, and a few roundings.
    const double relative = 0.5 * error / shape_.width / mean + 0x1p-24 * (shape_.width / 2 + 6);
    for (int32_t d = 0; d < shape_.width; ++d) {
      const double weight = factor * floats_[2].at(0, d);
      key.value[d] *= weight;
      key.bound[d] = std::abs(weight) * key.bound[d] + std::abs(key.value[d]) * relative;
    }
  }

  [[nodiscard]] Key Turned(const Key& key, int32_t position) const {
    Key turned = key;
    for (int32_t j = 0; j < half(); ++j) {
      const double cos = floats_[3].at(position, j);
      const double sin = floats_[4].at(position, j);
      const double a = key.value[j];
      const double b = key.value[j + half()];
      const auto bound = [&](double of_a, double of_b) {
        return std::abs(of_a) * key.bound[j] + std::abs(of_b) * key.bound[j + half()] +
               0x1p-23 * (std::abs(of_a * a) + std::abs(of_b * b));
      };
      turned.value[j] = a * cos - b * sin;
      turned.bound[j] = bound(cos, sin);
      turned.value[j + half()] = b * cos + a * sin;
      turned.bound[j + half()] = bound(sin, cos);
    }
    return turned;
  }

  LatentShape shape_;
  std::deque<TestRows> floats_;  // matrix [D, R], bias, weight [1, D], cos, sin [.., half]
  std::unique_ptr<DeviceArray<uint32_t>> packed_;
};

}  // namespace kvc::cuda
