#pragma once
// Latents of a few heads on the device, the keys that a rebuild makes of them, and the reference in
// double.

#include <algorithm>
#include <deque>
#include <string>
#include <vector>

#include "kernels/cuda/rebuild_keys.h"
#include "tests/cuda/encoded_rows.h"
#include "tests/cuda/latent_case.h"
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
  struct Head {
    RebuildShape shape;
    EncodedRows latents;
    std::unique_ptr<LatentCase> how;
    std::vector<int32_t> positions, live;
    DeviceArray<int32_t> device_positions, device_live;
    int64_t stride;
    DeviceArray<std::byte> keys;
    [[nodiscard]] int32_t there() const { return shape.live < 0 ? shape.rows : shape.live; }
  };
  using Reference = LatentCase::Key;
  [[nodiscard]] KeyRebuild RebuildOf(const Head& head) const;
  [[nodiscard]] Reference ReferenceOf(const Head& head, int32_t row) const;
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
      positions.push_back(
          shape.positions ? static_cast<int32_t>(rng.NextBelow(LatentCase::kPositions)) : r);
    }
    // The last row of the rotation's tables, so that what reads behind it is seen.
    if (shape.positions && !positions.empty()) positions.front() = LatentCase::kPositions - 1;
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
    head.how = std::make_unique<LatentCase>(
        LatentShape{shape.width, columns, shape.half, shape.bias, shape.norm}, rng);
  }
}

inline KeyRebuild RebuildCase::RebuildOf(const Head& head) const {
  const RebuildShape& shape = head.shape;
  KeyRebuild rebuild;
  rebuild.latents = head.latents.view();
  rebuild.keys = {head.keys.data() + shape.ahead, RowCodeOf(keys_), shape.width, head.stride};
  rebuild.how = head.how->view();
  rebuild.positions = shape.positions ? head.device_positions.data() : nullptr;
  rebuild.live = shape.live < 0 ? nullptr : head.device_live.data();
  rebuild.rows = shape.rows;
  return rebuild;
}

inline std::vector<std::vector<float>> RebuildCase::Run() const {
  std::vector<KeyRebuild> rebuilds;
  for (const Head& head : heads_) rebuilds.push_back(RebuildOf(head));
  const DeviceArray<KeyRebuild> table(rebuilds);
  RebuildKeys(table.data(), static_cast<int32_t>(rebuilds.size()), MostRows(rebuilds), nullptr);
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

// Adds what the format of the keys takes away.
inline void RebuildCase::Round(Reference& key) const {
  double largest = 0.0;
  for (size_t d = 0; d < key.value.size(); ++d) {
    largest = std::max(largest, std::abs(key.value[d]) + key.bound[d]);
  }
  for (size_t d = 0; d < key.value.size(); ++d) {
    const double size = std::abs(key.value[d]) + key.bound[d];
    key.bound[d] += keys_ == kRowsBF16   ? UnitOf(DType::kBF16) * size
                    : keys_ == kRowsF16  ? UnitOf(DType::kF16) * size + 0x1p-25
                    : keys_ == kRowsInt8 ? (0.5 + 0x1p-15) * largest / 127.0
                                         : 0.0;
  }
}

inline RebuildCase::Reference RebuildCase::ReferenceOf(const Head& head, int32_t row) const {
  Reference key = head.how->KeyOf(head.shape.rank, head.positions[row],
                                  [&](int32_t r) { return head.latents.at(row, r); });
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
            std::abs(static_cast<double>(got) - reference.value[d]) / reference.bound[d];
        worst = std::isnan(error) ? INFINITY : std::max(worst, error);
      }
    }
  }
  return worst;
}

}  // namespace kvc::cuda
