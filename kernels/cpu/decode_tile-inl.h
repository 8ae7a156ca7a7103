// The second half of a tile of decode attention, which follows the scores: online softmax and
// values.

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#if defined(KVC_KERNELS_CPU_DECODE_TILE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef KVC_KERNELS_CPU_DECODE_TILE_INL_H_
#undef KVC_KERNELS_CPU_DECODE_TILE_INL_H_
#else
#define KVC_KERNELS_CPU_DECODE_TILE_INL_H_
#endif

#include <hwy/highway.h>

#include "kernels/attention.h"
#include "kernels/cpu/decode_part.h"
#include "kernels/cpu/decode_state.h"
#include "kernels/cpu/gemm-inl.h"
#include "kernels/cpu/row_readers-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

static_assert(kTile % kPanel == 0);

// The rows of a segment that make up a tile, as their reader sees them.
template <class Reader>
struct TileRows {
  Reader reader;  // its row 0 is the first
  int64_t count = 0;
  int64_t width = 0;
};

template <class Reader>
TileRows<Reader> MakeTileRows(const RowBlock& block,
                              const Reader& reader,
                              int64_t first,
                              int64_t count) {
  return {reader.From(first), count, block.width};
}

// Calls body(q, n) for groups of n <= kMost queries that begin with q, from `q` to the last; n is a
// constant.
template <int kMost, class Body>
HWY_INLINE void ForQueries(int64_t count, const Body& body, int64_t q = 0) {
  for (; q + kMost <= count; q += kMost) {
    body(q, std::integral_constant<int, kMost>());
  }
  if constexpr (kMost > 1) {
    ForQueries<kMost - 1>(count, body, q);
  }
}

// Turns the tile's scores of kQueries queries into exp(s - maximum) and updates maxima and sums;
// shrink: the factors by which what was summed before must shrink. Queries go together, so that
// their reductions overlap.
template <int kQueries>
HWY_INLINE void UpdateSoftmax(const HeadState& state,
                              int64_t first_query,
                              int64_t count,
                              float* shrink) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  float* scores = state.scores + first_query * kScoreStride;
  VecF row[4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    row[q] = hn::Set(tag, q < kQueries ? state.partial(first_query + q)[0] : 0.0F);
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    float* row_scores = scores + q * kScoreStride;
    std::fill_n(row_scores + count, kScoreStride - kTile, -std::numeric_limits<float>::infinity());
    for (int64_t i = 0; i < count; i += lanes) {
      row[q] = hn::Max(row[q], hn::LoadU(tag, row_scores + i));
    }
  }
  HWY_ALIGN float maxima[4];
  FoldLanes(tag, row[0], row[1], row[2], row[3], LargerLanes(), maxima);
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    const VecF maximum = hn::Set(tag, maxima[q]);
    float* row_scores = scores + q * kScoreStride;
    row[q] = hn::Zero(tag);
    for (int64_t i = 0; i < count; i += lanes) {
      const VecF p = Exp(tag, hn::Sub(hn::LoadU(tag, row_scores + i), maximum));
      hn::StoreU(p, tag, row_scores + i);
      row[q] = hn::Add(row[q], p);
    }
  }
  HWY_ALIGN float sums[4];
  StoreSums(tag, row[0], row[1], row[2], row[3], sums);
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    float* partial = state.partial(first_query + q);
    const float factor = hn::GetLane(Exp(tag, hn::Set(tag, partial[0] - maxima[q])));
    shrink[first_query + q] = factor;
    partial[0] = maxima[q];
    partial[1] = partial[1] * factor + sums[q];
  }
}

// sums[q][v] += scores[q][0] row[v], q < kQueries, v < kVectors, for the vectors of the row that
// begin at `column`, the last of them `last` elements wide.
template <int kQueries, int kVectors, class Row>
HWY_INLINE void AddRow(const Row& row,
                       int64_t column,
                       int64_t last,
                       const float* scores,
                       VecF (&sums)[kQueries][kVectors]) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF p[kQueries];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    p[q] = hn::Set(tag, scores[q * kScoreStride]);
  }
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; ++v) {
    const bool whole = v < kVectors - 1 || last == lanes;
    const int64_t k = column + v * lanes;
    const VecF value = InRegister(whole ? row.Load(tag, k) : row.LoadFirst(tag, k, last));
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      sums[q][v] = hn::MulAdd(p[q], value, sums[q][v]);
    }
  }
}

// outputs[q][c..] = shrink[q] outputs[q][c..] + sum_r scores[q][r] values[r][c..] for kQueries
// queries and kVectors vectors of columns, the last of them `last` elements wide.
template <int kQueries, int kVectors, class Reader>
HWY_INLINE void AddValues(const TileRows<Reader>& values,
                          int64_t column,
                          int64_t last,
                          Slots slots,
                          const HeadState& state,
                          int64_t first_query,
                          const float* shrink) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kQueries][kVectors];
  float* outputs[kQueries];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    outputs[q] = state.partial(first_query + q) + kPartialHeader + column;
    const VecF factor = hn::Set(tag, shrink[first_query + q]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[q][v] = hn::Mul(factor, hn::LoadU(tag, outputs[q] + v * lanes));
    }
  }
  const float* scores = state.scores + first_query * kScoreStride;
  int64_t row = 0;
  for (int64_t i = 0; i < kRowsAtOnce; ++i) {
    for (int64_t r = 0; r < slots.apart; ++r, ++row) {
      AddRow(values.reader.row(row), column, last, scores + r * kRowsAtOnce + i, sums);
    }
  }
  for (; row < values.count; ++row) {
    AddRow(values.reader.row(row), column, last, scores + row, sums);
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[q][v], tag, outputs[q] + v * lanes);
    }
  }
}

// Sums that AddValues may hold in registers.
constexpr int kMostSums = HWY_TARGET <= HWY_AVX3 ? 16 : 8;

// The columns from `column` on that fill whole groups of kVectors vectors; returns the next one.
template <int kVectors, class Reader>
HWY_INLINE int64_t AddColumns(const TileRows<Reader>& values,
                              int64_t column,
                              Slots slots,
                              const HeadState& state,
                              const float* shrink) {
  constexpr int kQueries = std::min(4, kMostSums / kVectors);
  const auto lanes = static_cast<int64_t>(hn::Lanes(TagF()));
  for (; column + kVectors * lanes <= values.width; column += kVectors * lanes) {
    ForQueries<kQueries>(state.count, [&](int64_t q, auto queries) HWY_ATTR {
      AddValues<decltype(queries)::value, kVectors>(values, column, lanes, slots, state, q, shrink);
    });
  }
  return column;
}

// Adds a tile's values to every query's output. Columns beyond values.width only shrink. Eight
// vectors at a time, so that rows of up to 512 bytes are read from end to end.
template <class Reader>
void AddTile(const TileRows<Reader>& values,
             Slots slots,
             const HeadState& state,
             const float* shrink) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(TagF()));
  int64_t column = AddColumns<8>(values, 0, slots, state, shrink);
  column = AddColumns<4>(values, column, slots, state, shrink);
  column = AddColumns<1>(values, column, slots, state, shrink);
  if (column < values.width) {
    ForQueries<4>(state.count, [&](int64_t q, auto queries) HWY_ATTR {
      AddValues<decltype(queries)::value, 1>(values, column, values.width - column, slots, state, q,
                                             shrink);
    });
    column += lanes;
  }
  for (int64_t q = 0; q < state.count && column < state.value_width; ++q) {
    float* output = state.partial(q) + kPartialHeader;
    for (int64_t c = column; c < state.value_width; ++c) {
      output[c] *= shrink[q];
    }
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // KVC_KERNELS_CPU_DECODE_TILE_INL_H_
