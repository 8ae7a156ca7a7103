#pragma once
// A dense block of cached tokens of one group: what a tier or the recent block is made of.
//
//   keys       [capacity, key_width]               rows in key_format, on the device
//   values     [heads][capacity, value_width]      rows in value_format, likewise; one plane for
//                                                  each kv head of the group
//   positions  [capacity]  int32                   on the host; only where keys are latents
//   scores     [capacity]  bf16                    on the host; only in tiers
//
// Rows 0 .. rows()-1 hold tokens, oldest first. The block knows how many there are and what is
// decided from; elements are moved by a backend (runtime/cpu/cache_rows.h), which then says so.
//
// The recent block of a layer with a window is a ring once it has room for exactly the window: when
// it holds that many rows, a new one takes the place of the oldest, so that nothing else moves.
// Attention does not ask for the order of rows; nothing else reads such a block.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/row_format.h"
#include "core/cache/cache_spec.h"
#include "runtime/cache/metered_array.h"
#include "runtime/device.h"

namespace kvc::runtime {

struct BlockShape {
  RowFormat key_format = {};
  RowFormat value_format = {};
  int64_t key_width = 0;
  int64_t value_width = 0;
  int64_t heads = 1;  // planes of values
  bool positions = false;
  bool scores = false;
  int64_t window = 0;  // a block of this capacity is a ring; 0: none is
  // Of the formats that need steps; they lie in the spec's bases, which must outlive the block.
  CodeSteps key_steps = {};
  std::vector<CodeSteps> value_steps = {};  // [heads]; empty: none

  [[nodiscard]] CodeSteps ValueSteps(int64_t plane) const {
    return value_steps.empty() ? CodeSteps() : value_steps[plane];
  }
  [[nodiscard]] int64_t KeyRowBytes() const { return RowBytes(key_format, key_width, key_steps); }
  // Of a plane: heads of a group differ where their mixtures do.
  [[nodiscard]] int64_t ValueRowBytes(int64_t plane) const {
    return RowBytes(value_format, value_width, ValueSteps(plane));
  }
  // Of the first `planes` planes together.
  [[nodiscard]] int64_t ValueRowBytesBefore(int64_t planes) const;
  // Bytes of one row, position and score included.
  [[nodiscard]] int64_t BytesPerRow() const;
};

// The shape of a group's rows: in tier `tier` of the spec, or (-1) in the recent block.
[[nodiscard]] BlockShape ShapeOf(const CacheSpec& spec, int64_t layer, int64_t group, int64_t tier);
// The shape of a group's rows while a prompt is in its working block, which becomes the recent
// block where every token is kept.
[[nodiscard]] BlockShape WorkingShape(const CacheSpec& spec, int64_t layer, int64_t group);

class CacheBlock {
 public:
  CacheBlock() = default;
  CacheBlock(const BlockShape& shape, int64_t capacity, Device& device, CacheMeter& meter);

  [[nodiscard]] const BlockShape& shape() const { return shape_; }
  [[nodiscard]] int64_t rows() const { return rows_; }
  [[nodiscard]] int64_t capacity() const { return capacity_; }
  // True when there is no place for one row more.
  [[nodiscard]] bool full() const { return rows_ == capacity_ && !ring(); }
  [[nodiscard]] bool ring() const { return shape_.window > 0 && capacity_ == shape_.window; }
  // Where the next row goes.
  [[nodiscard]] int64_t next_row() const { return rows_ < capacity_ ? rows_ : oldest_; }
  // [rows]; empty where the block has none.
  [[nodiscard]] std::span<const int32_t> positions() const;
  // [rows], as they were rounded; empty where the block has none.
  [[nodiscard]] std::vector<float> Scores() const;
  // Where the elements lie; plane p of the values takes PlaneBytes(p) from PlaneOffset(p) on.
  [[nodiscard]] const Buffer& keys() const { return keys_; }
  [[nodiscard]] const Buffer& values() const { return values_; }
  [[nodiscard]] int64_t PlaneBytes(int64_t plane) const {
    return capacity_ * shape_.ValueRowBytes(plane);
  }
  [[nodiscard]] int64_t PlaneOffset(int64_t plane) const {
    return capacity_ * shape_.ValueRowBytesBefore(plane);
  }

  // A copy whose allocations count on `meter`; its capacity is the same.
  [[nodiscard]] CacheBlock Clone(CacheMeter& meter) const;
  // Re-allocates to exactly `capacity` >= rows(), with what is there. Throws kInternal.
  void Reserve(int64_t capacity, CacheMeter& meter);

  // What a backend says when it has moved elements; rows, positions and scores follow.
  // `count` rows behind the last one, of positions first_position, first_position + 1, ..., or one
  // row in the place of a full ring's oldest. Throws kInternal when there is no room.
  void Appended(int64_t count, int64_t first_position);
  // The same with positions and scores [count] of their own; not read where the block keeps none.
  void Appended(int64_t count, std::span<const int32_t> positions, std::span<const float> scores);
  // `count` rows whose positions and scores are not known yet; Settled says them.
  void AppendedUnknown(int64_t count);
  // Positions and scores [rows()] of all rows; not read where the block keeps none.
  void Settled(std::span<const int32_t> positions, std::span<const float> scores);
  // Scores of the first rows, as many as are given.
  void SetScores(std::span<const float> scores);
  // Only the rows listed (ascending) are left, in order.
  void Kept(std::span<const int64_t> rows);
  // The oldest `count` rows are gone.
  void DroppedFront(int64_t count);

 private:
  void CopyRows(const CacheBlock& from);
  void CheckRoom(int64_t count) const;

  BlockShape shape_;
  int64_t rows_ = 0;
  int64_t capacity_ = 0;
  int64_t oldest_ = 0;  // row of the oldest token; above 0 only in a full ring
  Buffer keys_;
  Buffer values_;
  MeteredArray<int32_t> positions_;
  MeteredArray<uint16_t> scores_;
};

}  // namespace kvc::runtime
