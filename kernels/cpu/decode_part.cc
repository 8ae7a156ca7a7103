#include "kernels/cpu/decode_part.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/code_part.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/decode_part.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/decode_tile-inl.h"
#include "kernels/cpu/key_rebuild-inl.h"
#include "kernels/cpu/row_readers-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

// scores[q][r] = queries[q] . keys[r] for kQueries queries and kRowsAtOnce rows.
template <int kQueries, class Row>
HWY_INLINE void ScoreBlock(const Row (&keys)[kRowsAtOnce],
                           int64_t width,
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
      key[r] = InRegister(keys[r].Load(tag, k));
    }
    add(k, key);
  }
  if (k < width) {
#pragma GCC unroll 4
    for (int r = 0; r < kRowsAtOnce; ++r) {
      key[r] = keys[r].LoadFirst(tag, k, width - k);
    }
    add(k, key);
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
    StoreSums(tag, sums[q][0], sums[q][1], sums[q][2], sums[q][3], scores + q * kScoreStride);
  }
}

template <class Row>
HWY_INLINE void ScoreQueries(const Row (&keys)[kRowsAtOnce],
                             int64_t width,
                             const HeadState& state,
                             float* scores) {
  ForQueries<4>(state.count, [&](int64_t q, auto queries) HWY_ATTR {
    ScoreBlock<decltype(queries)::value>(keys, width, state.queries + q * state.stride,
                                         state.stride, scores + q * kScoreStride);
  });
}

// state.scores of a tile's rows; returns their slots. Row r + i count / 4 of the tile has slot 4 r
// + i (i < 4), the last count % 4 rows their own number: blocks of sums take rows a quarter of the
// tile apart, because a processor fetches four streams ahead of their use, but not neighbouring
// rows of 512 bytes that take turns (a third of the bandwidth here).
template <class Reader>
Slots ScoreTile(const TileRows<Reader>& keys, const HeadState& state) {
  static_assert(kRowsAtOnce == 4);
  const auto score = [&](int64_t first, int64_t step, float* scores) HWY_ATTR {
    const Reader& all = keys.reader;
    const decltype(all.row(0)) rows[kRowsAtOnce] = {all.row(first), all.row(first + step),
                                                    all.row(first + 2 * step),
                                                    all.row(first + 3 * step)};
    ScoreQueries(rows, keys.width, state, scores);
  };
  const int64_t apart = keys.count / kRowsAtOnce;
  for (int64_t r = 0; r < apart; ++r) {
    score(r, apart, state.scores + r * kRowsAtOnce);
  }
  for (int64_t r = apart * kRowsAtOnce; r < keys.count; ++r) {
    // Four times the same row: the tile ends here, and nothing beyond it is read. What is written
    // too much lies after the rows of the tile and is overwritten or masked.
    score(r, 0, state.scores + r);
  }
  return {apart};
}

// scores[q][t] = queries[q] . keys[t] for kQueries queries and the tokens of a panel
// [width, kPanel].
template <int kQueries>
HWY_INLINE void ScorePanel(
    const float* keys, int64_t width, const float* queries, int64_t query_stride, float* scores) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  VecF sums[kQueries][kVecs];
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      sums[q][v] = hn::Zero(tag);
    }
  }
  for (int64_t d = 0; d < width; ++d, keys += kPanel) {
    const VecF first = hn::LoadU(tag, keys);
    const VecF second = hn::LoadU(tag, keys + lanes);
#pragma GCC unroll 4
    for (int q = 0; q < kQueries; ++q) {
      const VecF query = hn::Set(tag, queries[q * query_stride + d]);
      sums[q][0] = hn::MulAdd(query, first, sums[q][0]);
      sums[q][1] = hn::MulAdd(query, second, sums[q][1]);
    }
  }
#pragma GCC unroll 4
  for (int q = 0; q < kQueries; ++q) {
#pragma GCC unroll 4
    for (int v = 0; v < kVecs; ++v) {
      hn::StoreU(sums[q][v], tag, scores + q * kScoreStride + v * lanes);
    }
  }
}

// The heads of a part.
struct Heads {
  std::span<const DecodeHead> all;
  HeadState first;
  [[nodiscard]] HeadState state(size_t h) const {
    const auto before = static_cast<int64_t>(h) * first.count;
    HeadState state = first;
    state.queries += before * first.stride;
    state.scores += before * kScoreStride;
    state.partials += before * PartialStride(first.value_width);
    return state;
  }
};

// Whether two heads rebuild the keys of a segment from the same columns.
bool SameLatents(const DecodeHead& a, const DecodeHead& b, size_t s) {
  const RowBlock& x = a.segments[s].keys;
  const RowBlock& y = b.segments[s].keys;
  return x.data == y.data && x.format == y.format && x.width == y.width && x.stride == y.stride &&
         a.rebuild->rebuild.cols == b.rebuild->rebuild.cols;
}

// Scores of rows first .. first + count - 1 of segment number `s`, whose keys are rebuilt panel by
// panel.
void ScoreRebuilt(const Heads& heads, size_t s, int64_t first, int64_t count) {
  const DecodeHead& front = heads.all[0];
  const int64_t width = front.queries.cols;
  float* keys = Scratch(ScratchUse::kKeys, width * kPanel);
  for (int64_t row = 0; row < count; row += kPanel) {
    const int64_t rows = std::min(kPanel, count - row);
    const AnglePanel angles =
        LayOutAngles(front.segments[s].positions + first + row, rows, *front.rebuild);
    LatentPanel panel;
    for (size_t h = 0; h < heads.all.size(); ++h) {
      const KeyRebuild& rebuild = *heads.all[h].rebuild;
      if (h == 0 || !SameLatents(heads.all[h - 1], heads.all[h], s)) {
        panel =
            LayOutLatents(heads.all[h].segments[s].keys, first + row, rows, rebuild.rebuild.cols);
      }
      const HeadState state = heads.state(h);
      RebuildPanel(panel, angles, rebuild, keys);
      ForQueries<4>(state.count, [&](int64_t q, auto queries) HWY_ATTR {
        ScorePanel<decltype(queries)::value>(keys, width, state.queries + q * state.stride,
                                             state.stride, state.scores + q * kScoreStride + row);
      });
    }
  }
}

// Keys in codes: their runs, and the queries in whole numbers.
struct CodedKeys {
  CodeRuns runs;
  const RunQueries* queries = nullptr;
};

CodedKeys PrepareCodes(const RowBlock& keys, const HeadState& state) {
  CodedKeys coded = {RunsOf(keys.format, keys.width, keys.steps), nullptr};
  const CodeKernels& kernels = CodeKernelsInUse();
  float* scratch = Scratch(ScratchUse::kCodeQueries, kernels.query_floats(coded.runs, state.count));
  coded.queries = kernels.quantize_queries(coded.runs, state, scratch);
  return coded;
}

// Updates the softmax by a tile's scores, and adds its weighted values to the outputs.
void AccumulateTile(
    const RowBlock& values, int64_t first, int64_t count, Slots slots, const HeadState& state) {
  float* shrink = Scratch(ScratchUse::kShrink, state.count);
  ForQueries<4>(state.count, [&](int64_t q, auto queries) HWY_ATTR {
    UpdateSoftmax<decltype(queries)::value>(state, q, count, shrink);
  });
  if (NeedsSteps(values.format)) {
    const CodeKernels& kernels = CodeKernelsInUse();
    const CodeRuns runs = RunsOf(values.format, values.width, values.steps);
    float* digits = Scratch(ScratchUse::kDigits, kernels.digit_floats(state.count));
    kernels.add(values, runs, first, count, slots, state, shrink, digits);
    return;
  }
  WithRows(values, [&](const auto& reader) HWY_ATTR {
    AddTile(MakeTileRows(values, reader, first, count), slots, state, shrink);
  });
}

// Rows first .. first + count - 1 of segment number `s`, whose keys are `coded` if they are codes.
void AttendTile(
    const Heads& heads, size_t s, const CodedKeys& coded, int64_t first, int64_t count) {
  const Segment& segment = heads.all[0].segments[s];
  Slots slots;
  if (heads.all[0].rebuild != nullptr) {
    ScoreRebuilt(heads, s, first, count);
  } else if (coded.queries != nullptr) {
    CodeKernelsInUse().score(segment.keys, coded.runs, coded.queries, first, count, heads.first);
  } else {
    WithRows(segment.keys, [&](const auto& reader) HWY_ATTR {
      slots = ScoreTile(MakeTileRows(segment.keys, reader, first, count), heads.first);
    });
  }
  for (size_t h = 0; h < heads.all.size(); ++h) {
    AccumulateTile(heads.all[h].segments[s].values, first, count, slots, heads.state(h));
  }
}

// The queries times `scale`, and results that have seen no row.
void StartHead(const DecodeHead& head, float scale, const HeadState& state, float* queries) {
  for (int64_t q = 0; q < state.count; ++q) {
    float* query = queries + q * state.stride;
    for (int64_t k = 0; k < state.stride; ++k) {
      query[k] = k < head.queries.cols ? head.queries(q, k) * scale : 0.0F;
    }
    std::fill_n(state.partial(q), PartialStride(state.value_width), 0.0F);
    state.partial(q)[0] = -std::numeric_limits<float>::infinity();
  }
}

Heads StartHeads(std::span<const DecodeHead> all, float scale, float* partials) {
  Heads heads{all, {}};
  HeadState& first = heads.first;
  first.count = all[0].queries.rows;
  first.stride = (all[0].queries.cols + 15) / 16 * 16;
  first.value_width = all[0].outputs.cols;
  first.partials = partials;
  const int64_t rows = first.count * std::ssize(all);
  first.scores = Scratch(ScratchUse::kScores, rows * kScoreStride);
  float* queries = Scratch(ScratchUse::kQueries, rows * first.stride);
  first.queries = queries;
  for (size_t h = 0; h < all.size(); ++h) {
    const HeadState state = heads.state(h);
    StartHead(all[h], scale, state, queries + (state.queries - first.queries));
  }
  return heads;
}

void Attend(
    std::span<const DecodeHead> all, int64_t begin, int64_t end, float scale, float* partials) {
  const Heads heads = StartHeads(all, scale, partials);
  int64_t segment_begin = 0;
  for (size_t s = 0; s < all[0].segments.size(); ++s) {
    const int64_t rows = all[0].segments[s].keys.rows;
    const int64_t to = std::min(end - segment_begin, rows);
    int64_t row = std::max(begin - segment_begin, int64_t{0});
    CodedKeys coded;
    if (row < to && all[0].rebuild == nullptr && NeedsSteps(all[0].segments[s].keys.format)) {
      coded = PrepareCodes(all[0].segments[s].keys, heads.first);
    }
    for (; row < to; row += kTile) {
      AttendTile(heads, s, coded, row, std::min(kTile, to - row));
    }
    segment_begin += rows;
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Attend);

void AttendRows(
    std::span<const DecodeHead> heads, int64_t begin, int64_t end, float scale, float* partials) {
  HWY_DYNAMIC_DISPATCH(Attend)(heads, begin, end, scale, partials);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
