#include "runtime/cpu/cache_rows.h"

#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "runtime/cpu/host_memory.h"

namespace kvc::runtime {
namespace {

std::byte* KeyRow(const CacheBlock& block, int64_t row) {
  return HostMemory::Of(block.keys()) + row * block.shape().KeyRowBytes();
}

std::byte* ValueRow(const CacheBlock& block, int64_t plane, int64_t row) {
  return HostMemory::Of(block.values()) + block.PlaneOffset(plane) +
         row * block.shape().ValueRowBytes(plane);
}

// Writes rows to the block's next places; the block does not know of them yet.
void WriteElements(ConstMatrixF keys, ConstMatrixF values, const CacheBlock& to) {
  if (keys.rows == 0) return;
  const int64_t row = to.next_row();
  KVC_CHECK(!to.full() && row + keys.rows <= to.capacity(), kInternal,
            "cache block: expected room for {} rows, got {}", keys.rows, to.capacity() - to.rows());
  const BlockShape& shape = to.shape();
  EncodeRows({keys.data, keys.rows, shape.key_width, keys.stride}, shape.key_format,
             KeyRow(to, row), shape.KeyRowBytes(), shape.key_steps);
  for (int64_t plane = 0; plane < shape.heads; ++plane) {
    EncodeRows(values.ColRange(plane * shape.value_width, shape.value_width), shape.value_format,
               ValueRow(to, plane, row), shape.ValueRowBytes(plane), shape.ValueSteps(plane));
  }
}

StoredRows KeyRowsOf(const BlockShape& shape) {
  return {shape.key_format, shape.key_width, shape.KeyRowBytes(), shape.key_steps};
}

StoredRows ValueRowsOf(const BlockShape& shape, int64_t plane) {
  return {shape.value_format, shape.value_width, shape.ValueRowBytes(plane),
          shape.ValueSteps(plane)};
}

}  // namespace

kernels::RowBlock KeysOf(const CacheBlock& block) {
  const BlockShape& shape = block.shape();
  return {HostMemory::Of(block.keys()), shape.key_format, block.rows(), shape.key_width,
          shape.KeyRowBytes(),          shape.key_steps};
}

kernels::RowBlock ValuesOf(const CacheBlock& block, int64_t plane) {
  const BlockShape& shape = block.shape();
  return {HostMemory::Of(block.values()) + block.PlaneOffset(plane),
          shape.value_format,
          block.rows(),
          shape.value_width,
          shape.ValueRowBytes(plane),
          shape.ValueSteps(plane)};
}

kernels::Segment SegmentOf(const CacheBlock& block, int64_t plane) {
  return {KeysOf(block), ValuesOf(block, plane),
          block.shape().positions ? block.positions().data() : nullptr};
}

void AppendRows(ConstMatrixF keys, ConstMatrixF values, int64_t first_position, CacheBlock& to) {
  WriteElements(keys, values, to);
  to.Appended(keys.rows, first_position);
}

void AppendRows(ConstMatrixF keys,
                ConstMatrixF values,
                std::span<const int32_t> positions,
                std::span<const float> scores,
                CacheBlock& to) {
  WriteElements(keys, values, to);
  to.Appended(keys.rows, positions, scores);
}

void AppendRow(const CacheBlock& from, int64_t row, float score, CacheBlock& to) {
  KVC_CHECK(!to.full(), kInternal, "cache block: expected room for a row, got none");
  CopyRows(KeyRow(from, row), KeyRowsOf(from.shape()), 1, KeyRow(to, to.rows()),
           KeyRowsOf(to.shape()));
  for (int64_t plane = 0; plane < to.shape().heads; ++plane) {
    CopyRows(ValueRow(from, plane, row), ValueRowsOf(from.shape(), plane), 1,
             ValueRow(to, plane, to.rows()), ValueRowsOf(to.shape(), plane));
  }
  const bool has_position = to.shape().positions;
  const int32_t position = has_position ? from.positions()[row] : 0;
  to.Appended(1, {&position, 1}, {&score, 1});
}

void KeepRows(std::span<const int64_t> rows, CacheBlock& block) {
  int64_t to = 0;
  for (const int64_t from : rows) {
    if (from != to) {
      std::memcpy(KeyRow(block, to), KeyRow(block, from),
                  static_cast<size_t>(block.shape().KeyRowBytes()));
      for (int64_t plane = 0; plane < block.shape().heads; ++plane) {
        std::memcpy(ValueRow(block, plane, to), ValueRow(block, plane, from),
                    static_cast<size_t>(block.shape().ValueRowBytes(plane)));
      }
    }
    ++to;
  }
  block.Kept(rows);
}

void DropFront(int64_t count, CacheBlock& block) {
  const int64_t left = block.rows() - count;
  if (count > 0 && left > 0) {
    std::memmove(KeyRow(block, 0), KeyRow(block, count),
                 static_cast<size_t>(left * block.shape().KeyRowBytes()));
    for (int64_t plane = 0; plane < block.shape().heads; ++plane) {
      std::memmove(ValueRow(block, plane, 0), ValueRow(block, plane, count),
                   static_cast<size_t>(left * block.shape().ValueRowBytes(plane)));
    }
  }
  block.DroppedFront(count);
}

void PushQueries(ConstMatrixF queries, int64_t stored_width, QueryRing& ring) {
  if (ring.rows() == 0) return;
  const int64_t first = std::max<int64_t>(0, queries.rows - ring.rows());
  for (int64_t t = first; t < queries.rows; ++t) {
    float* row = HostMemory::Floats(ring.buffer()) + ring.RowOf(ring.pushed() + t) * ring.width();
    for (int64_t h = 0; h < ring.num_heads(); ++h) {
      std::copy_n(queries.row(t) + h * stored_width, ring.width(h), row + ring.offset(h));
    }
  }
  ring.Pushed(queries.rows);
}

void CopyQueries(const QueryRing& ring, int64_t head, MatrixF out) {
  for (int64_t i = 0; i < out.rows; ++i) {
    const int64_t row = ring.RowOf(ring.pushed() - out.rows + i);
    std::copy_n(HostMemory::Floats(ring.buffer()) + row * ring.width() + ring.offset(head),
                out.cols, out.row(i));
  }
}

}  // namespace kvc::runtime
