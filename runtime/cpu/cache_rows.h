#pragma once
// What moves rows of a cache in the host's memory: the elements of blocks and of the query ring,
// with the bookkeeping of runtime/cache. Nothing here is safe for several threads on one block.

#include <cstdint>
#include <span>

#include "core/base/view.h"
#include "kernels/attention.h"
#include "runtime/cache/cache_block.h"
#include "runtime/cache/kv_cache.h"

namespace kvc::runtime {

// A block's rows as kernels read them. Good until the block is re-allocated.
[[nodiscard]] kernels::RowBlock KeysOf(const CacheBlock& block);
// Values of the group's head number `plane`.
[[nodiscard]] kernels::RowBlock ValuesOf(const CacheBlock& block, int64_t plane);
[[nodiscard]] kernels::Segment SegmentOf(const CacheBlock& block, int64_t plane);

// Appends T rows, encoded in the block's formats: keys [T, >= key_width], of which the first
// key_width columns are kept; values [T, heads * value_width], plane after plane; positions
// first_position, first_position + 1, ... Throws kInternal when there is no room.
void AppendRows(ConstMatrixF keys, ConstMatrixF values, int64_t first_position, CacheBlock& to);
// The same with positions and scores [T] of their own; empty where the block keeps none.
void AppendRows(ConstMatrixF keys,
                ConstMatrixF values,
                std::span<const int32_t> positions,
                std::span<const float> scores,
                CacheBlock& to);
// Appends the first key_width / value_width elements of row `row` of a block that is at least as
// wide, by the rule of kvc::CopyRows.
void AppendRow(const CacheBlock& from, int64_t row, float score, CacheBlock& to);
// Keeps the rows listed (ascending), in order.
void KeepRows(std::span<const int64_t> rows, CacheBlock& block);
// Drops the oldest `count` rows.
void DropFront(int64_t count, CacheBlock& block);

// queries [T, H * stored_width]: head h's first columns stand at h * stored_width.
void PushQueries(ConstMatrixF queries, int64_t stored_width, QueryRing& ring);
// The newest out.rows queries of a head, oldest first: out [count, width of the head].
void CopyQueries(const QueryRing& ring, int64_t head, MatrixF out);

}  // namespace kvc::runtime
