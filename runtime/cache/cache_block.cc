#include "runtime/cache/cache_block.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "core/base/dtype.h"
#include "core/base/error.h"
#include "core/cache/cache_bases.h"

namespace kvc::runtime {
namespace {

// Only what is infinite stays so: it says that a row is never dropped.
void RoundScores(std::span<const float> scores, uint16_t* target) {
  constexpr uint16_t kInfinity = 0x7F80;
  for (const float score : scores) {
    const uint16_t bits = FloatToBF16(score);
    const bool overflows = (bits & kInfinity) == kInfinity && std::isfinite(score);
    *target++ = overflows ? bits - 1 : bits;
  }
}

}  // namespace

int64_t BlockShape::ValueRowBytesBefore(int64_t planes) const {
  if (value_steps.empty()) return planes * ValueRowBytes(0);
  int64_t bytes = 0;
  for (int64_t plane = 0; plane < planes; ++plane) bytes += ValueRowBytes(plane);
  return bytes;
}

int64_t BlockShape::BytesPerRow() const {
  return KeyRowBytes() + ValueRowBytesBefore(heads) +
         (positions ? static_cast<int64_t>(sizeof(int32_t)) : 0) + (scores ? kScoreBytes : 0);
}

BlockShape WorkingShape(const CacheSpec& spec, int64_t layer, int64_t group) {
  const CacheGroup& own = spec.layers[layer][group];
  BlockShape shape;
  shape.key_format = spec.key_format;
  shape.value_format = spec.value_format;
  shape.key_width = own.key_width;
  shape.value_width = own.value_width;
  shape.heads = static_cast<int64_t>(own.heads.size());
  shape.positions = own.keeps_positions;
  shape.window = spec.AttentionWindow(layer);
  return shape;
}

BlockShape ShapeOf(const CacheSpec& spec, int64_t layer, int64_t group, int64_t tier) {
  const CacheGroup& own = spec.layers[layer][group];
  const Tier share = tier < 0 ? Tier{} : spec.tiers[tier];
  BlockShape shape = WorkingShape(spec, layer, group);
  shape.key_format = KeyFormat(spec, tier);
  shape.value_format = ValueFormat(spec, tier);
  shape.key_width = TierWidth(own.key_width, share.key_share);
  shape.value_width = TierWidth(own.value_width, share.value_share);
  shape.scores = tier >= 0;
  if (tier >= 0) shape.window = 0;
  if (NeedsSteps(shape.key_format)) {
    shape.key_steps = KeySteps(spec.bases->at(layer), shape.key_format, own.heads[0]);
  }
  if (NeedsSteps(shape.value_format)) {
    for (const int64_t head : own.heads) {
      shape.value_steps.push_back(kvc::ValueSteps(spec.bases->at(layer), shape.value_format, head));
    }
  }
  return shape;
}

CacheBlock::CacheBlock(const BlockShape& shape, int64_t capacity, Device& device, CacheMeter& meter)
    : shape_(shape),
      capacity_(capacity),
      keys_(capacity * shape.KeyRowBytes(), device, &meter),
      values_(capacity * shape.ValueRowBytesBefore(shape.heads), device, &meter) {
  if (shape.positions) positions_ = MeteredArray<int32_t>(capacity, meter);
  if (shape.scores) scores_ = MeteredArray<uint16_t>(capacity, meter);
}

std::span<const int32_t> CacheBlock::positions() const {
  if (!shape_.positions) return {};
  return {positions_.data(), static_cast<size_t>(rows_)};
}

std::vector<float> CacheBlock::Scores() const {
  std::vector<float> scores(shape_.scores ? static_cast<size_t>(rows_) : 0);
  for (size_t i = 0; i < scores.size(); ++i) scores[i] = BF16ToFloat(scores_.data()[i]);
  return scores;
}

CacheBlock CacheBlock::Clone(CacheMeter& meter) const {
  if (keys_.device() == nullptr) return {};
  CacheBlock copy(shape_, capacity_, *keys_.device(), meter);
  copy.CopyRows(*this);
  return copy;
}

void CacheBlock::Reserve(int64_t capacity, CacheMeter& meter) {
  KVC_CHECK(capacity >= rows_, kInternal,
            "cache block: expected a capacity of at least {} rows, got {}", rows_, capacity);
  if (capacity == capacity_) return;
  KVC_CHECK(oldest_ == 0, kInternal, "cache block: expected a ring to stay as large as its window");
  CacheBlock larger(shape_, capacity, *keys_.device(), meter);
  larger.CopyRows(*this);
  *this = std::move(larger);
}

void CacheBlock::CopyRows(const CacheBlock& from) {
  rows_ = from.rows_;
  oldest_ = from.oldest_;
  if (rows_ == 0) return;
  Device& device = *keys_.device();
  device.Copy(from.keys_, 0, keys_, 0, rows_ * shape_.KeyRowBytes());
  for (int64_t plane = 0; plane < shape_.heads; ++plane) {
    device.Copy(from.values_, from.PlaneOffset(plane), values_, PlaneOffset(plane),
                rows_ * shape_.ValueRowBytes(plane));
  }
  std::ranges::copy(from.positions(), positions_.data());
  if (shape_.scores) std::copy_n(from.scores_.data(), rows_, scores_.data());
}

void CacheBlock::CheckRoom(int64_t count) const {
  KVC_CHECK(rows_ + count <= capacity_, kInternal, "cache block: expected room for {} rows, got {}",
            count, capacity_ - rows_);
}

void CacheBlock::Appended(int64_t count, int64_t first_position) {
  const int64_t row = next_row();
  const bool replaces = ring() && count == 1 && rows_ == capacity_;
  if (!replaces) CheckRoom(count);
  if (shape_.positions) {
    int32_t* first = positions_.data() + row;
    std::iota(first, first + count, static_cast<int32_t>(first_position));
  }
  if (replaces) {
    oldest_ = (oldest_ + 1) % capacity_;
  } else {
    rows_ += count;
  }
}

void CacheBlock::Appended(int64_t count,
                          std::span<const int32_t> positions,
                          std::span<const float> scores) {
  CheckRoom(count);
  if (shape_.positions) std::copy_n(positions.data(), count, positions_.data() + rows_);
  if (shape_.scores) RoundScores(scores.first(static_cast<size_t>(count)), scores_.data() + rows_);
  rows_ += count;
}

void CacheBlock::AppendedUnknown(int64_t count) {
  KVC_CHECK(rows_ + count <= capacity_, kInternal, "cache block: expected room for {} rows, got {}",
            count, capacity_ - rows_);
  rows_ += count;
}

void CacheBlock::Settled(std::span<const int32_t> positions, std::span<const float> scores) {
  if (shape_.positions) std::copy_n(positions.data(), rows_, positions_.data());
  SetScores(scores.first(shape_.scores ? static_cast<size_t>(rows_) : 0));
}

void CacheBlock::SetScores(std::span<const float> scores) {
  if (shape_.scores) RoundScores(scores, scores_.data());
}

void CacheBlock::Kept(std::span<const int64_t> rows) {
  int64_t to = 0;
  for (const int64_t from : rows) {
    if (shape_.positions) positions_.data()[to] = positions_.data()[from];
    if (shape_.scores) scores_.data()[to] = scores_.data()[from];
    ++to;
  }
  rows_ = to;
}

void CacheBlock::DroppedFront(int64_t count) {
  if (shape_.positions) {
    std::copy(positions_.data() + count, positions_.data() + rows_, positions_.data());
  }
  if (shape_.scores) std::copy(scores_.data() + count, scores_.data() + rows_, scores_.data());
  rows_ -= count;
}

}  // namespace kvc::runtime
