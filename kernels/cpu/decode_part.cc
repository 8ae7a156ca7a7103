#include "kernels/cpu/decode_part.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_part.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/key_rebuild-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Rows between two updates of the running maximum. A multiple of every vector's lanes and of
// kRowsAtOnce.
constexpr int64_t kTile = 256;
// The same where keys are rebuilt, 24 KiB of them at 64 floats a row. A multiple of kStrip as well.
constexpr int64_t kRebuildTile = 96;
// From one query's scores to the next: room for a block of sums that begins at the tile's last row.
constexpr int64_t kScoreStride = kTile + 16;
// Key rows of one block of sums; up to four query rows share it.
constexpr int kRowsAtOnce = 4;

// Some rows of a segment as elements of one type.
template <class Element>
struct Rows {
  const Element* data = nullptr;
  int64_t count = 0;
  int64_t width = 0;
  int64_t stride = 0;
};

template <class Element>
Rows<Element> MakeRows(const RowBlock& block, const Element* data, int64_t first, int64_t count) {
  return {data + first * block.stride, count, block.width, block.stride};
}

// One head's queries and running results during a part.
struct Work {
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

// scores[q][r] = queries[q] . keys[r] for kQueries queries and kRowsAtOnce rows.
template <int kQueries, class Element>
HWY_INLINE void ScoreBlock(const Element* keys,
                           int64_t width,
                           int64_t key_stride,
                           const float* queries,
                           int64_t query_stride,
                           float* scores) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kQueries][kRowsAtOnce];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowsAtOnce; ++r) {
      sums[q][r] = hn::Zero(tag);
    }
  }
  const auto add = [&](int64_t k, const VecF* key) HWY_ATTR {
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const VecF query = InRegister(hn::LoadU(tag, queries + q * query_stride + k));
#pragma GCC unroll 4
      for (int r = 0; r < kRowsAtOnce; ++r) {
        sums[q][r] = hn::MulAdd(query, key[r], sums[q][r]);
      }
    }
  };
  int64_t k = 0;
  VecF key[kRowsAtOnce];
  for (; k + lanes <= width; k += lanes) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowsAtOnce; ++r) {
      key[r] = InRegister(LoadFloat(tag, keys + r * key_stride + k));
    }
    add(k, key);
  }
  if (k < width) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowsAtOnce; ++r) {
      key[r] = LoadFirst(tag, keys + r * key_stride + k, width - k);
    }
    add(k, key);
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    StoreSums(tag, sums[q][0], sums[q][1], sums[q][2], sums[q][3], scores + q * kScoreStride);
  }
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

template <class Element>
HWY_INLINE void ScoreQueries(
    const Element* keys, int64_t width, int64_t key_stride, const Work& work, float* scores) {
  ForQueries<4>(work.count, [&](int64_t q, auto queries) HWY_ATTR {
    ScoreBlock<decltype(queries)::value>(keys,
                                         width,
                                         key_stride,
                                         work.queries + q * work.stride,
                                         work.stride,
                                         scores + q * kScoreStride);
  });
}

// work.scores of a tile's rows. Row r + i count / 4 of the tile has slot 4 r + i (i < 4), the last
// count % 4 rows their own number: blocks of sums take rows a quarter of the tile apart, because a
// processor fetches four streams ahead of their use, but not neighbouring rows of 512 bytes that
// take turns (a third of the bandwidth here).
template <class Element>
void ScoreTile(const Rows<Element>& keys, const Work& work) {
  const int64_t apart = keys.count / kRowsAtOnce;
  for (int64_t r = 0; r < apart; ++r) {
    const Element* data = keys.data + r * keys.stride;
    float* scores = work.scores + r * kRowsAtOnce;
    ScoreQueries(data, keys.width, apart * keys.stride, work, scores);
  }
  for (int64_t r = apart * kRowsAtOnce; r < keys.count; ++r) {
    // Four times the same row: the tile ends here, and nothing beyond it is read. What is written
    // too much lies behind the rows of the tile and is overwritten or masked.
    ScoreQueries(keys.data + r * keys.stride, keys.width, 0, work, work.scores + r);
  }
}

// Turns the tile's scores of kQueries queries into exp(s - maximum) and updates maxima and sums;
// shrink: the factors by which what was summed before must shrink. Queries go together, so that
// their reductions overlap.
template <int kQueries>
HWY_INLINE void Soften(const Work& work, int64_t first_query, int64_t count, float* shrink) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  float* scores = work.scores + first_query * kScoreStride;
  VecF row[4];
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    row[q] = hn::Set(tag, q < kQueries ? work.partial(first_query + q)[0] : 0.0F);
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
    float* partial = work.partial(first_query + q);
    const float factor = hn::GetLane(Exp(tag, hn::Set(tag, partial[0] - maxima[q])));
    shrink[first_query + q] = factor;
    partial[0] = maxima[q];
    partial[1] = partial[1] * factor + sums[q];
  }
}

// sums[q][v] += scores[q][0] row[v], q < kQueries, v < kVectors, the last vector of the row `last`
// elements wide.
template <int kQueries, int kVectors, class Element>
HWY_INLINE void AddRow(const Element* row,
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
    const Element* source = row + v * lanes;
    const VecF value = InRegister(whole ? LoadFloat(tag, source) : LoadFirst(tag, source, last));
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      sums[q][v] = hn::MulAdd(p[q], value, sums[q][v]);
    }
  }
}

// outputs[q][c..] = shrink[q] outputs[q][c..] + sum_r scores[q][r] values[r][c..] for kQueries
// queries and kVectors vectors of columns, the last of them `last` elements wide; scores lie in the
// slots of ScoreTile.
template <int kQueries, int kVectors, class Element>
HWY_INLINE void AddValues(const Rows<Element>& values,
                          int64_t column,
                          int64_t last,
                          const Work& work,
                          int64_t first_query,
                          const float* shrink) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kQueries][kVectors];
  float* outputs[kQueries];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    outputs[q] = work.partial(first_query + q) + kPartialHeader + column;
    const VecF factor = hn::Set(tag, shrink[first_query + q]);
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sums[q][v] = hn::Mul(factor, hn::LoadU(tag, outputs[q] + v * lanes));
    }
  }
  const float* scores = work.scores + first_query * kScoreStride;
  const Element* row = values.data + column;
  const int64_t apart = values.count / kRowsAtOnce;
  for (int64_t i = 0; i < kRowsAtOnce; ++i) {
    for (int64_t r = 0; r < apart; ++r, row += values.stride) {
      AddRow(row, last, scores + r * kRowsAtOnce + i, sums);
    }
  }
  for (int64_t r = apart * kRowsAtOnce; r < values.count; ++r, row += values.stride) {
    AddRow(row, last, scores + r, sums);
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
template <int kVectors, class Element>
HWY_INLINE int64_t
AddColumns(const Rows<Element>& values, int64_t column, const Work& work, const float* shrink) {
  constexpr int kQueries = std::min(4, kMostSums / kVectors);
  const auto lanes = static_cast<int64_t>(hn::Lanes(TagF()));
  for (; column + kVectors * lanes <= values.width; column += kVectors * lanes) {
    ForQueries<kQueries>(work.count, [&](int64_t q, auto queries) HWY_ATTR {
      AddValues<decltype(queries)::value, kVectors>(values, column, lanes, work, q, shrink);
    });
  }
  return column;
}

// Adds a tile's values to every query's output. Columns beyond values.width only shrink. Eight
// vectors at a time, so that rows of up to 512 bytes are read from end to end.
template <class Element>
void AddTile(const Rows<Element>& values, const Work& work, const float* shrink) {
  const auto lanes = static_cast<int64_t>(hn::Lanes(TagF()));
  int64_t column = AddColumns<8>(values, 0, work, shrink);
  column = AddColumns<4>(values, column, work, shrink);
  column = AddColumns<1>(values, column, work, shrink);
  if (column < values.width) {
    ForQueries<4>(work.count, [&](int64_t q, auto queries) HWY_ATTR {
      AddValues<decltype(queries)::value, 1>(
          values, column, values.width - column, work, q, shrink);
    });
    column += lanes;
  }
  for (int64_t q = 0; q < work.count && column < work.value_width; ++q) {
    float* output = work.partial(q) + kPartialHeader;
    for (int64_t c = column; c < work.value_width; ++c) {
      output[c] *= shrink[q];
    }
  }
}

// Rows first .. first + count - 1 of a segment.
void AttendTile(const Segment& segment,
                const KeyRebuild* rebuild,
                const float* packed,
                int64_t first,
                int64_t count,
                const Work& work) {
  if (rebuild == nullptr) {
    WithElements(segment.keys.dtype, segment.keys.data, [&](const auto* data) HWY_ATTR {
      ScoreTile(MakeRows(segment.keys, data, first, count), work);
    });
  } else {
    const int64_t width = rebuild->rebuild.rows;
    float* keys = Scratch(ScratchUse::kKeys, kRebuildTile * width);
    RebuildTile(
        segment.keys, first, segment.positions + first, *rebuild, packed, {keys, count, width});
    ScoreTile(Rows<float>{keys, count, width, width}, work);
  }
  float* shrink = Scratch(ScratchUse::kShrink, work.count);
  ForQueries<4>(work.count, [&](int64_t q, auto queries) HWY_ATTR {
    Soften<decltype(queries)::value>(work, q, count, shrink);
  });
  WithElements(segment.values.dtype, segment.values.data, [&](const auto* data) HWY_ATTR {
    AddTile(MakeRows(segment.values, data, first, count), work, shrink);
  });
}

// The queries times `scale`, and results that have seen no row.
Work StartWork(const DecodeHead& head, float scale, float* partials) {
  Work work;
  work.count = head.queries.rows;
  work.stride = (head.queries.cols + 15) / 16 * 16;
  work.value_width = head.outputs.cols;
  work.scores = Scratch(ScratchUse::kScores, work.count * kScoreStride);
  work.partials = partials;
  float* queries = Scratch(ScratchUse::kQueries, work.count * work.stride);
  work.queries = queries;
  for (int64_t q = 0; q < work.count; ++q) {
    float* query = queries + q * work.stride;
    for (int64_t k = 0; k < work.stride; ++k) {
      query[k] = k < head.queries.cols ? head.queries(q, k) * scale : 0.0F;
    }
    std::fill_n(work.partial(q), PartialStride(work.value_width), 0.0F);
    work.partial(q)[0] = -std::numeric_limits<float>::infinity();
  }
  return work;
}

void Attend(const DecodeHead& head, int64_t begin, int64_t end, float scale, float* partials) {
  const Work work = StartWork(head, scale, partials);
  const float* packed = head.rebuild == nullptr ? nullptr : PackRebuild(*head.rebuild);
  const int64_t tile = head.rebuild == nullptr ? kTile : kRebuildTile;
  int64_t segment_begin = 0;
  for (const Segment& segment : head.segments) {
    const int64_t from = std::max(begin - segment_begin, int64_t{0});
    const int64_t to = std::min(end - segment_begin, segment.keys.rows);
    for (int64_t row = from; row < to; row += tile) {
      AttendTile(segment, head.rebuild, packed, row, std::min(tile, to - row), work);
    }
    segment_begin += segment.keys.rows;
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Attend);

void AttendRows(const DecodeHead& head, int64_t begin, int64_t end, float scale, float* partials) {
  HWY_DYNAMIC_DISPATCH(Attend)(head, begin, end, scale, partials);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
