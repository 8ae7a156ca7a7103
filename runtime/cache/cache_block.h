#pragma once
// A dense block of cached tokens of one group: what a tier or the recent block is made of.
//
//   keys       [capacity, key_width]               in the cache's dtype
//   values     [heads][capacity, value_width]      one plane for each kv head of the group
//   positions  [capacity]  int32                   only where keys are latents
//   scores     [capacity]  float                   only in tiers
//
// Rows 0 .. rows()-1 hold tokens, oldest first. Appending is O(1) and copies nothing else; the
// block is re-allocated only by Reserve.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/dtype.h"
#include "core/base/view.h"
#include "kernels/attention.h"
#include "runtime/cache/cache_memory.h"

namespace kvc::runtime {

struct BlockShape {
  DType dtype = DType::kF32;
  int64_t key_width = 0;
  int64_t value_width = 0;
  int64_t heads = 1;  // planes of values
  bool positions = false;
  bool scores = false;

  // Bytes of one row, position and score included.
  [[nodiscard]] int64_t BytesPerRow() const;
};

class CacheBlock {
 public:
  CacheBlock() = default;
  CacheBlock(const BlockShape& shape, int64_t capacity, CacheMeter& meter);

  [[nodiscard]] const BlockShape& shape() const { return shape_; }
  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  [[nodiscard]] bool full() const { return rows_ == capacity_; }
  // [rows]; empty where the block has none.
  [[nodiscard]] std::span<const int32_t> positions() const;
  [[nodiscard]] std::span<float> scores() const;
  [[nodiscard]] kernels::RowBlock keys() const;
  // Values of the group's head number `plane`.
  [[nodiscard]] kernels::RowBlock values(int64_t plane) const;
  [[nodiscard]] kernels::Segment segment(int64_t plane) const;

  // A copy whose allocations count on `meter`; its capacity is the same.
  [[nodiscard]] CacheBlock Clone(CacheMeter& meter) const;
  // Re-allocates to exactly `capacity` >= rows().
  void Reserve(int64_t capacity, CacheMeter& meter);
  // Appends T rows, rounded to the block's dtype: keys [T, >= key_width], of which the first
  // key_width columns are kept; values [T, heads * value_width], plane after plane; positions
  // first_position, first_position + 1, ... There must be room.
  void Append(ConstMatrixF keys, ConstMatrixF values, int64_t first_position);
  // The same with positions and scores [T] of their own; empty where the block keeps none.
  void Append(ConstMatrixF keys,
              ConstMatrixF values,
              std::span<const int32_t> positions,
              std::span<const float> scores);
  // Appends row `row` of a block of the same dtype, the first key_width / value_width elements of
  // it.
  void AppendRow(const CacheBlock& from, int64_t row, float score);
  // Keeps the rows listed (ascending), in order.
  void Keep(std::span<const int64_t> rows);
  // Drops the oldest `count` rows.
  void DropFront(int64_t count);

 private:
  // Appends everything but positions and scores.
  void AppendElements(ConstMatrixF keys, ConstMatrixF values);
  void CopyRows(const CacheBlock& from, int64_t count);

  BlockShape shape_;
  int64_t rows_ = 0;
  int64_t capacity_ = 0;
  CacheBuffer keys_;
  CacheBuffer values_;
  CacheBuffer positions_;
  CacheBuffer scores_;
};

}  // namespace kvc::runtime
