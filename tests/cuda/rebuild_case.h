#pragma once
// Latents of a few heads on the device, the keys that a rebuild makes of them, and the reference in
// double.

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "kernels/cuda/rebuild_keys.h"
#include "tests/cuda/encoded_rows.h"
#include "tests/cuda/test_rows.h"

namespace kvc::cuda {

struct RebuildShape {
  std::string name;
  int32_t rows, rank, width;
  int32_t half = -1;    // pairs that turn; -1: all
  int32_t columns = 0;  // of the matrix; 0: rank
  int32_t live = -1;    // rows that are there; -1: all, without a place on the device
  bool bias = false, norm = false, positions = false;
  int64_t ahead = 0, pad = 0;  // bytes before the first row of latents and keys, and behind each
};

class RebuildCase {
 public:
  RebuildCase(const std::vector<RebuildShape>& shapes,
              const RowFormat& latents,
              const RowFormat& keys,
              Rng& rng);
  // Returns the bytes of all keys, decoded: [heads][rows * D]; NaN in rows that are not there.
  [[nodiscard]] std::vector<std::vector<float>> Run() const;
  // The largest error of Run's keys in units of its bound; NaN, and a row written that is not
  // there, count as infinite.
  [[nodiscard]] double WorstError(const std::vector<std::vector<float>>& keys) const;

 private:
  static constexpr int32_t kPositions = 1000;
  static constexpr float kEpsilon = 1e-3F;

  struct Head {
    RebuildShape shape;
    EncodedRows latents;
    std::deque<TestRows> floats;  // matrix [D, columns], bias, weight [1, D], cos, sin [.., half]
    std::vector<int32_t> positions, live;
    DeviceArray<int32_t> device_positions, device_live;
    int64_t stride;
    DeviceArray<std::byte> keys;
    [[nodiscard]] int32_t half() const { return shape.half < 0 ? shape.width / 2 : shape.half; }
    [[nodiscard]] int32_t there() const { return shape.live < 0 ? shape.rows : shape.live; }
  };
  struct Reference {
    std::vector<double> key, bound;  // [D]
  };
  static const float* On(const TestRows& rows) {
    return static_cast<const float*>(rows.view().data);
  }
  [[nodiscard]] KeyRebuild RebuildOf(const Head& head) const;
  [[nodiscard]] Reference ReferenceOf(const Head& head, int32_t row) const;
  static Reference Products(const Head& head, int32_t row);
  static void Norm(const Head& head, Reference& key);
  static Reference Turned(const Head& head, const Reference& key, int32_t row);
  void Round(Reference& key) const;

  RowFormat keys_;
  std::deque<Head> heads_;
};

inline RebuildCase::RebuildCase(const std::vector<RebuildShape>& shapes,
                                const RowFormat& latents,
                                const RowFormat& keys,
                                Rng& rng)
    : keys_(keys) {
  for (const RebuildShape& shape : shapes) {
    const int32_t there = shape.live < 0 ? shape.rows : shape.live;
    std::vector<int32_t> positions;
    for (int32_t r = 0; r < shape.rows; ++r) {
      positions.push_back(shape.positions ? static_cast<int32_t>(rng.NextBelow(kPositions)) : r);
    }
    const int64_t stride = RowBytes(keys, shape.width) + shape.pad;
    // Rows that nobody writes stay NaN in every format: 0xff.
    const std::vector<std::byte> nothing(static_cast<size_t>(shape.ahead + shape.rows * stride),
                                         std::byte{0xff});
    Head& head = heads_.emplace_back(
        Head{shape,
             EncodedRows(rng, latents, shape.rows, there, shape.rank, shape.ahead, shape.pad),
             {},
             positions,
             {there},
             DeviceArray<int32_t>(positions),
             DeviceArray<int32_t>(std::vector<int32_t>{there}),
             stride,
             DeviceArray<std::byte>(nothing)});
    const int32_t columns = shape.columns == 0 ? shape.rank : shape.columns;
    head.floats.push_back(RandomRows(rng, DType::kF32, shape.width, columns, 3 * (columns % 2)));
    head.floats.push_back(RandomRows(rng, DType::kF32, 1, shape.width));
    head.floats.push_back(RandomRows(rng, DType::kF32, 1, shape.width));
    std::vector<float> cos;
    std::vector<float> sin;
    for (int64_t i = 0; i < int64_t{kPositions} * head.half(); ++i) {
      const double angle = 6.0 * rng.NextDouble();
      cos.push_back(static_cast<float>(std::cos(angle)));
      sin.push_back(static_cast<float>(std::sin(angle)));
    }
    head.floats.emplace_back(DType::kF32, kPositions, head.half(), 0, cos);
    head.floats.emplace_back(DType::kF32, kPositions, head.half(), 0, sin);
  }
}

inline KeyRebuild RebuildCase::RebuildOf(const Head& head) const {
  const RebuildShape& shape = head.shape;
  KeyRebuild rebuild;
  rebuild.latents = head.latents.view();
  rebuild.keys = {head.keys.data() + shape.ahead, RowCodeOf(keys_), shape.width, head.stride};
  rebuild.matrix = On(head.floats[0]);
  rebuild.matrix_stride = head.floats[0].stride;
  rebuild.bias = shape.bias ? On(head.floats[1]) : nullptr;
  rebuild.norm_weight = shape.norm ? On(head.floats[2]) : nullptr;
  rebuild.norm_epsilon = kEpsilon;
  rebuild.rotation = {On(head.floats[3]), On(head.floats[4]), head.half()};
  rebuild.positions = shape.positions ? head.device_positions.data() : nullptr;
  rebuild.live = shape.live < 0 ? nullptr : head.device_live.data();
  rebuild.rows = shape.rows;
  return rebuild;
}

inline std::vector<std::vector<float>> RebuildCase::Run() const {
  std::vector<KeyRebuild> rebuilds;
  for (const Head& head : heads_) rebuilds.push_back(RebuildOf(head));
  const DeviceArray<KeyRebuild> table(rebuilds);
  RebuildKeys(table.data(), static_cast<int32_t>(rebuilds.size()), SizeOf(rebuilds), nullptr);
  std::vector<std::vector<float>> result;
  for (const Head& head : heads_) {
    const std::vector<std::byte> bytes = head.keys.Host();
    std::vector<float> keys(static_cast<size_t>(head.shape.rows * head.shape.width));
    DecodeRows(bytes.data() + head.shape.ahead, keys_, head.stride,
               {keys.data(), head.shape.rows, head.shape.width});
    result.push_back(keys);
  }
  return result;
}

// A float sum of n terms is off by (n + 1) 2^-24 of the sum of their magnitudes.
inline RebuildCase::Reference RebuildCase::Products(const Head& head, int32_t row) {
  Reference key;
  for (int32_t d = 0; d < head.shape.width; ++d) {
    double sum = 0.0;
    double magnitude = 0.0;
    for (int32_t r = 0; r < head.shape.rank; ++r) {
      const double product = head.latents.at(row, r) * head.floats[0].at(d, r);
      sum += product;
      magnitude += std::abs(product);
    }
    const double bias = head.shape.bias ? head.floats[1].at(0, d) : 0.0;
    key.key.push_back(sum + bias);
    key.bound.push_back(0x1p-24 * (head.shape.rank + 2) * (magnitude + std::abs(bias)));
  }
  return key;
}

inline void RebuildCase::Norm(const Head& head, Reference& key) {
  if (!head.shape.norm) return;
  const int32_t width = head.shape.width;
  double squares = 0.0;
  double error = 0.0;
  for (int32_t d = 0; d < width; ++d) {
    squares += key.key[d] * key.key[d];
    error += 2.0 * std::abs(key.key[d]) * key.bound[d] + key.bound[d] * key.bound[d];
  }
  const double mean = squares / width + static_cast<double>(kEpsilon);
  const double factor = 1.0 / std::sqrt(mean);
  // Of the factor, relative: half of the mean's, and a few roundings.
  const double relative = 0.5 * error / width / mean + 0x1p-24 * (width / 2 + 6);
  for (int32_t d = 0; d < width; ++d) {
    const double weight = factor * head.floats[2].at(0, d);
    key.key[d] *= weight;
    key.bound[d] = std::abs(weight) * key.bound[d] + std::abs(key.key[d]) * relative;
  }
}

inline RebuildCase::Reference RebuildCase::Turned(const Head& head,
                                                  const Reference& key,
                                                  int32_t row) {
  Reference turned = key;
  const int32_t half = head.half();
  for (int32_t j = 0; j < half; ++j) {
    const double cos = head.floats[3].at(head.positions[row], j);
    const double sin = head.floats[4].at(head.positions[row], j);
    const double a = key.key[j];
    const double b = key.key[j + half];
    const auto bound = [&](double of_a, double of_b) {
      return std::abs(of_a) * key.bound[j] + std::abs(of_b) * key.bound[j + half] +
             0x1p-23 * (std::abs(of_a * a) + std::abs(of_b * b));
    };
    turned.key[j] = a * cos - b * sin;
    turned.bound[j] = bound(cos, sin);
    turned.key[j + half] = b * cos + a * sin;
    turned.bound[j + half] = bound(sin, cos);
  }
  return turned;
}

// Adds what the format of the keys takes away.
inline void RebuildCase::Round(Reference& key) const {
  double largest = 0.0;
  for (size_t d = 0; d < key.key.size(); ++d) {
    largest = std::max(largest, std::abs(key.key[d]) + key.bound[d]);
  }
  for (size_t d = 0; d < key.key.size(); ++d) {
    const double size = std::abs(key.key[d]) + key.bound[d];
    key.bound[d] += keys_ == kRowsBF16   ? UnitOf(DType::kBF16) * size
                    : keys_ == kRowsF16  ? UnitOf(DType::kF16) * size + 0x1p-25
                    : keys_ == kRowsInt8 ? (0.5 + 0x1p-15) * largest / 127.0
                                         : 0.0;
  }
}

inline RebuildCase::Reference RebuildCase::ReferenceOf(const Head& head, int32_t row) const {
  Reference key = Products(head, row);
  Norm(head, key);
  key = Turned(head, key, row);
  Round(key);
  return key;
}

inline double RebuildCase::WorstError(const std::vector<std::vector<float>>& keys) const {
  double worst = 0.0;
  for (size_t h = 0; h < heads_.size(); ++h) {
    const Head& head = heads_[h];
    for (int32_t row = 0; row < head.shape.rows; ++row) {
      const bool there = row < head.there();
      const Reference reference = there ? ReferenceOf(head, row) : Reference();
      for (int32_t d = 0; d < head.shape.width; ++d) {
        const float got = keys[h][static_cast<size_t>(row * head.shape.width + d)];
        if (!there) {
          worst = std::isnan(got) ? worst : INFINITY;
          continue;
        }
        const double error =
            std::abs(static_cast<double>(got) - reference.key[d]) / reference.bound[d];
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
  }
  return worst;
}

}  // namespace kvc::cuda
