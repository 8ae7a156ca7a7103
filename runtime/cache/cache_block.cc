#include "runtime/cache/cache_block.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/base/error.h"

namespace kvc::runtime {

int64_t BlockShape::BytesPerRow() const {
  return (key_width + heads * value_width) * DTypeBytes(dtype) +
         (positions ? static_cast<int64_t>(sizeof(int32_t)) : 0) +
         (scores ? static_cast<int64_t>(sizeof(float)) : 0);
}

CacheBlock::CacheBlock(const BlockShape& shape, int64_t capacity, CacheMeter& meter)
    : shape_(shape), capacity_(capacity) {
  const int64_t element = DTypeBytes(shape.dtype);
  keys_ = CacheBuffer(capacity * shape.key_width * element, meter);
  values_ = CacheBuffer(capacity * shape.heads * shape.value_width * element, meter);
  if (shape.positions) {
    positions_ = CacheBuffer(capacity * static_cast<int64_t>(sizeof(int32_t)), meter);
  }
  if (shape.scores) scores_ = CacheBuffer(capacity * static_cast<int64_t>(sizeof(float)), meter);
}

std::span<const int32_t> CacheBlock::positions() const {
  if (!shape_.positions) return {};
  return {positions_.as<int32_t>(), static_cast<size_t>(rows_)};
}

std::span<float> CacheBlock::scores() const {
  if (!shape_.scores) return {};
  return {scores_.as<float>(), static_cast<size_t>(rows_)};
}

kernels::RowBlock CacheBlock::keys() const {
  return {keys_.data(), shape_.dtype, rows_, shape_.key_width, shape_.key_width};
}

kernels::RowBlock CacheBlock::values(int64_t plane) const {
  const int64_t plane_bytes = capacity_ * shape_.value_width * DTypeBytes(shape_.dtype);
  return {values_.data() + plane * plane_bytes, shape_.dtype, rows_, shape_.value_width,
          shape_.value_width};
}

kernels::Segment CacheBlock::segment(int64_t plane) const {
  return {keys(), values(plane), shape_.positions ? positions_.as<int32_t>() : nullptr};
}

CacheBlock CacheBlock::Clone(CacheMeter& meter) const {
  CacheBlock copy(shape_, capacity_, meter);
  copy.CopyRows(*this, rows_);
  return copy;
}

void CacheBlock::Reserve(int64_t capacity, CacheMeter& meter) {
  KVC_CHECK(capacity >= rows_, kInternal,
            "cache block: expected a capacity of at least {} rows, got {}", rows_, capacity);
  if (capacity == capacity_) return;
  CacheBlock larger(shape_, capacity, meter);
  larger.CopyRows(*this, rows_);
  *this = std::move(larger);
}

void CacheBlock::CopyRows(const CacheBlock& from, int64_t count) {
  if (count > 0) {
    const int64_t element = DTypeBytes(shape_.dtype);
    const auto key_bytes = static_cast<size_t>(count * shape_.key_width * element);
    const auto value_bytes = static_cast<size_t>(count * shape_.value_width * element);
    std::memcpy(keys_.data(), from.keys_.data(), key_bytes);
    for (int64_t plane = 0; plane < shape_.heads; ++plane) {
      const int64_t plane_bytes = capacity_ * shape_.value_width * element;
      std::memcpy(values_.data() + plane * plane_bytes, from.values(plane).data, value_bytes);
    }
    const auto rows = static_cast<size_t>(count);
    if (shape_.positions) {
      std::memcpy(positions_.data(), from.positions_.data(), rows * sizeof(int32_t));
    }
    if (shape_.scores) std::memcpy(scores_.data(), from.scores_.data(), rows * sizeof(float));
  }
  rows_ = count;
}

void CacheBlock::Append(ConstMatrixF keys, ConstMatrixF values, int64_t first_position) {
  AppendElements(keys, values);
  if (!shape_.positions) return;
  for (int64_t t = 0; t < keys.rows; ++t) {
    positions_.as<int32_t>()[rows_ - keys.rows + t] = static_cast<int32_t>(first_position + t);
  }
}

void CacheBlock::Append(ConstMatrixF keys,
                        ConstMatrixF values,
                        std::span<const int32_t> positions,
                        std::span<const float> scores) {
  const int64_t first = rows_;
  AppendElements(keys, values);
  if (shape_.positions) std::ranges::copy(positions, positions_.as<int32_t>() + first);
  if (shape_.scores) std::ranges::copy(scores, scores_.as<float>() + first);
}

void CacheBlock::AppendElements(ConstMatrixF keys, ConstMatrixF values) {
  KVC_CHECK(rows_ + keys.rows <= capacity_, kInternal,
            "cache block: expected room for {} rows, got {}", keys.rows, capacity_ - rows_);
  const int64_t element = DTypeBytes(shape_.dtype);
  const int64_t plane_bytes = capacity_ * shape_.value_width * element;
  for (int64_t t = 0; t < keys.rows; ++t) {
    const int64_t row = rows_ + t;
    ConvertFromFloat(keys.row(t), shape_.key_width, shape_.dtype,
                     keys_.data() + row * shape_.key_width * element);
    for (int64_t plane = 0; plane < shape_.heads; ++plane) {
      ConvertFromFloat(values.row(t) + plane * shape_.value_width, shape_.value_width, shape_.dtype,
                       values_.data() + plane * plane_bytes + row * shape_.value_width * element);
    }
  }
  rows_ += keys.rows;
}

void CacheBlock::AppendRow(const CacheBlock& from, int64_t row, float score) {
  KVC_CHECK(!full() && from.shape_.dtype == shape_.dtype, kInternal,
            "cache block: expected room for a row of the same type");
  const int64_t element = DTypeBytes(shape_.dtype);
  const int64_t key_bytes = shape_.key_width * element;
  const int64_t value_bytes = shape_.value_width * element;
  const auto* source = static_cast<const std::byte*>(from.keys().data);
  std::memcpy(keys_.data() + rows_ * key_bytes, source + row * from.shape_.key_width * element,
              static_cast<size_t>(key_bytes));
  for (int64_t plane = 0; plane < shape_.heads; ++plane) {
    const auto* plane_source = static_cast<const std::byte*>(from.values(plane).data);
    std::memcpy(values_.data() + (plane * capacity_ + rows_) * value_bytes,
                plane_source + row * from.shape_.value_width * element,
                static_cast<size_t>(value_bytes));
  }
  if (shape_.positions) positions_.as<int32_t>()[rows_] = from.positions_.as<int32_t>()[row];
  if (shape_.scores) scores_.as<float>()[rows_] = score;
  ++rows_;
}

void CacheBlock::Keep(std::span<const int64_t> rows) {
  const int64_t element = DTypeBytes(shape_.dtype);
  const int64_t key_bytes = shape_.key_width * element;
  const int64_t value_bytes = shape_.value_width * element;
  int64_t to = 0;
  for (const int64_t from : rows) {
    if (from != to) {
      std::memcpy(keys_.data() + to * key_bytes, keys_.data() + from * key_bytes,
                  static_cast<size_t>(key_bytes));
      for (int64_t plane = 0; plane < shape_.heads; ++plane) {
        std::byte* values = values_.data() + plane * capacity_ * value_bytes;
        std::memcpy(values + to * value_bytes, values + from * value_bytes,
                    static_cast<size_t>(value_bytes));
      }
      if (shape_.positions) positions_.as<int32_t>()[to] = positions_.as<int32_t>()[from];
      if (shape_.scores) scores_.as<float>()[to] = scores_.as<float>()[from];
    }
    ++to;
  }
  rows_ = to;
}

void CacheBlock::DropFront(int64_t count) {
  const int64_t left = rows_ - count;
  const int64_t element = DTypeBytes(shape_.dtype);
  const auto move = [&](std::byte* data, int64_t row_bytes) {
    std::memmove(data, data + count * row_bytes, static_cast<size_t>(left * row_bytes));
  };
  if (count > 0 && left > 0) {
    move(keys_.data(), shape_.key_width * element);
    for (int64_t plane = 0; plane < shape_.heads; ++plane) {
      const int64_t row_bytes = shape_.value_width * element;
      move(values_.data() + plane * capacity_ * row_bytes, row_bytes);
    }
    if (shape_.positions) move(positions_.data(), sizeof(int32_t));
    if (shape_.scores) move(scores_.data(), sizeof(float));
  }
  rows_ = left;
}

}  // namespace kvc::runtime
