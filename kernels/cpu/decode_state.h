#pragma once
// What the kernels of decode attention share about a tile of rows. Internal to kernels/cpu.

#include <cstdint>

#include "kernels/cpu/decode_part.h"

namespace kvc::kernels {

// Rows between two updates of the running maximum. A multiple of every panel and of kRowsAtOnce.
inline constexpr int64_t kTile = 256;
// From one query's scores to the next: room for a block of sums that begins at the tile's last row.
inline constexpr int64_t kScoreStride = kTile + 16;
// Key rows of one block of sums; up to four query rows share it.
inline constexpr int kRowsAtOnce = 4;

// Where a tile's scores lie: row r + i apart has slot 4 r + i (i < 4), the rows after those have
// their own number.
struct Slots {
  int64_t apart = 0;
  [[nodiscard]] int64_t Of(int64_t row) const {
    return row < kRowsAtOnce * apart ? row % apart * kRowsAtOnce + row / apart : row;
  }
};

// The queries of one head and its running maximum, sum and output during a part.
struct HeadState {
  const float* queries = nullptr;  // [count, stride], scaled, padded with zeros
  int64_t count = 0;
  int64_t stride = 0;
  int64_t value_width = 0;
  float* scores = nullptr;    // [count, kScoreStride]
  float* partials = nullptr;  // [count, PartialStride]
  [[nodiscard]] float* partial(int64_t q) const {
    return partials + q * PartialStride(value_width);
  }
};

}  // namespace kvc::kernels
