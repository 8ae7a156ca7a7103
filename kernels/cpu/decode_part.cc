#include "kernels/cpu/decode_part.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_part.cc"
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/key_rebuild-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// Rows between two updates of the running maximum: 24 KiB of values at 64 floats a row. A multiple
// of kStrip, of every vector's lanes and of kRowsAtOnce.
constexpr int64_t kTile = 96;
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

// Asks for row `row` of a block that is needed soon.
HWY_INLINE void PrefetchRow(const RowBlock& block, int64_t row, int64_t element_bytes) {
  const auto* begin = static_cast<const char*>(block.data) + row * block.stride * element_bytes;
  for (int64_t byte = 0; byte < block.width * element_bytes; byte += 64) {
    hwy::Prefetch(begin + byte);
  }
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

// Calls body(q, n) for groups of n <= 4 queries that begin with q; n is a constant.
template <class Body>
HWY_INLINE void ForQueries(int64_t count, const Body& body) {
  int64_t q = 0;
  for (; q + 4 <= count; q += 4) {
    body(q, std::integral_constant<int, 4>());
  }
  if (count - q == 3) {
    body(q, std::integral_constant<int, 3>());
  } else if (count - q == 2) {
    body(q, std::integral_constant<int, 2>());
  } else if (count - q == 1) {
    body(q, std::integral_constant<int, 1>());
  }
}

template <class Element>
HWY_INLINE void ScoreQueries(
    const Element* keys, int64_t width, int64_t key_stride, const Work& work, float* scores) {
  ForQueries(work.count, [&](int64_t q, auto queries) HWY_ATTR {
    ScoreBlock<decltype(queries)::value>(keys,
                                         width,
                                         key_stride,
                                         work.queries + q * work.stride,
                                         work.stride,
                                         scores + q * kScoreStride);
  });
}

// work.scores of a tile's rows; asks for the values of the same rows, first + r, on the way.
template <class Element>
void ScoreTile(const Rows<Element>& keys, const RowBlock& values, int64_t first, const Work& work) {
  const int64_t value_bytes = DTypeBytes(values.dtype);
  for (int64_t r = 0; r < keys.count; r += kRowsAtOnce) {
    const int64_t rows = std::min<int64_t>(kRowsAtOnce, keys.count - r);
    for (int64_t i = 0; i < rows; ++i) {
      PrefetchRow(values, first + r + i, value_bytes);
    }
    const Element* data = keys.data + r * keys.stride;
    if (rows == kRowsAtOnce) {
      ScoreQueries(data, keys.width, keys.stride, work, work.scores + r);
      continue;
    }
    for (int64_t i = 0; i < rows; ++i) {
      // Four times the same row: the tile ends here, and nothing beyond it is read. What is written
      // too much lies behind the rows of the tile and is overwritten or masked.
      ScoreQueries(data + i * keys.stride, keys.width, 0, work, work.scores + r + i);
    }
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
    std::fill(row_scores + count, row_scores + kTile, -std::numeric_limits<float>::infinity());
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

// outputs[q][c..] = shrink[q] outputs[q][c..] + sum_r scores[q][r] values[r][c..] for kQueries
// queries and kVectors vectors of columns, the last of them `last` elements wide.
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
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      sums[q][v] = hn::Mul(factor, hn::LoadU(tag, outputs[q] + v * lanes));
    }
  }
  const float* scores = work.scores + first_query * kScoreStride;
  const Element* row = values.data + column;
  for (int64_t r = 0; r < values.count; ++r, row += values.stride) {
    VecF value[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors - 1; ++v) {
      value[v] = InRegister(LoadFloat(tag, row + v * lanes));
    }
    const Element* end = row + (kVectors - 1) * lanes;
    value[kVectors - 1] =
        InRegister(last == lanes ? LoadFloat(tag, end) : LoadFirst(tag, end, last));
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const VecF p = hn::Set(tag, scores[q * kScoreStride + r]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        sums[q][v] = hn::MulAdd(p, value[v], sums[q][v]);
      }
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      hn::StoreU(sums[q][v], tag, outputs[q] + v * lanes);
    }
  }
}

template <int kVectors, class Element>
HWY_INLINE void AddValuesOfQueries(const Rows<Element>& values,
                                   int64_t column,
                                   int64_t last,
                                   const Work& work,
                                   const float* shrink) {
  ForQueries(work.count, [&](int64_t q, auto queries) HWY_ATTR {
    AddValues<decltype(queries)::value, kVectors>(values, column, last, work, q, shrink);
  });
}

// Adds a tile's values to every query's output. Columns beyond values.width only shrink.
template <class Element>
void AddTile(const Rows<Element>& values, const Work& work, const float* shrink) {
  constexpr int64_t kVectors = HWY_TARGET <= HWY_AVX3 ? 4 : 2;
  const auto lanes = static_cast<int64_t>(hn::Lanes(TagF()));
  int64_t column = 0;
  for (; column + kVectors * lanes <= values.width; column += kVectors * lanes) {
    AddValuesOfQueries<kVectors>(values, column, lanes, work, shrink);
  }
  for (; column < values.width; column += lanes) {
    AddValuesOfQueries<1>(values, column, std::min(lanes, values.width - column), work, shrink);
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
      ScoreTile(MakeRows(segment.keys, data, first, count), segment.values, first, work);
    });
  } else {
    const int64_t width = rebuild->rebuild.rows;
    float* keys = Scratch(ScratchUse::kKeys, kTile * width);
    RebuildTile(
        segment.keys, first, segment.positions + first, *rebuild, packed, {keys, count, width});
    ScoreTile(Rows<float>{keys, count, width, width}, segment.values, first, work);
  }
  float* shrink = Scratch(ScratchUse::kShrink, work.count);
  ForQueries(work.count, [&](int64_t q, auto queries) HWY_ATTR {
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
  int64_t segment_begin = 0;
  for (const Segment& segment : head.segments) {
    const int64_t from = std::max(begin - segment_begin, int64_t{0});
    const int64_t to = std::min(end - segment_begin, segment.keys.rows);
    for (int64_t row = from; row < to; row += kTile) {
      AttendTile(segment, head.rebuild, packed, row, std::min(kTile, to - row), work);
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
