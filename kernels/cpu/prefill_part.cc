#include "kernels/cpu/prefill_part.h"

#include <algorithm>
#include <limits>
#include <numeric>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/prefill_part.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/key_rebuild-inl.h"
#include "kernels/cpu/row_readers-inl.h"
#include "kernels/cpu/simd-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

static_assert(kKeyTile % kPanel == 0 && kWidestPanel % kPanel == 0);

// Rows of values [count, width] become panels [.., kKeyTile, kPanel] of floats, padded with zeros.
void LayOutValues(const RowBlock& values, int64_t first, int64_t count, float* panels) {
  WithRows(values, [&](const auto& reader) HWY_ATTR {
    for (int64_t c = 0; c < values.width; c += kPanel, panels += kKeyTile * kPanel) {
      const int64_t columns = std::min(kPanel, values.width - c);
      for (int64_t r = 0; r < count; ++r) {
        float* target = panels + r * kPanel;
        CopyToFloat(reader.row(first + r), c, columns, target);
        std::fill(target + columns, target + kPanel, 0.0F);
      }
    }
  });
}

void LayOut(const PrefillHead& head, const KeyBlock& block, int64_t tile) {
  const int64_t first = block.first + tile * kKeyTile;
  const int64_t count = std::min(kKeyTile, head.keys.rows - first);
  const int64_t width = head.queries[0].cols;
  float* panels = block.keys + tile * kKeyTile * width;
  if (head.rebuild == nullptr) {
    WithRows(head.keys, [&](const auto& reader)
                            HWY_ATTR { PackPanels(reader.From(first), count, width, panels); });
  } else {
    int32_t positions[kPanel];
    for (int64_t row = 0; row < count; row += kPanel, panels += width * kPanel) {
      const int64_t rows = std::min(kPanel, count - row);
      std::iota(positions, positions + rows, static_cast<int32_t>(first + row));
      RebuildPanel(LayOutLatents(head.keys, first + row, rows, head.rebuild->rebuild.cols),
                   LayOutAngles(positions, rows, *head.rebuild), *head.rebuild, panels);
    }
  }
  LayOutValues(head.values, first, count,
               block.values + tile * kKeyTile * PaddedWidth(head.values.width));
}

// A row of scores, of which hidden .. seen - 1 count: exp(s - maximum), zeros elsewhere up to
// `count`; updates maximum and sum and returns the factor by which the output so far must shrink.
HWY_INLINE float UpdateSoftmax(
    float* scores, int64_t hidden, int64_t seen, int64_t count, float* state) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  const int64_t padded = (count + lanes - 1) / lanes * lanes;
  std::fill(scores, scores + hidden, -std::numeric_limits<float>::infinity());
  std::fill(scores + seen, scores + padded, -std::numeric_limits<float>::infinity());
  VecF largest = hn::Set(tag, state[0]);
  for (int64_t i = 0; i < padded; i += lanes) {
    largest = hn::Max(largest, hn::LoadU(tag, scores + i));
  }
  const VecF maximum = hn::MaxOfLanes(tag, largest);
  VecF total = hn::Zero(tag);
  for (int64_t i = 0; i < padded; i += lanes) {
    const VecF p = Exp(tag, hn::Sub(hn::LoadU(tag, scores + i), maximum));
    hn::StoreU(p, tag, scores + i);
    total = hn::Add(total, p);
  }
  const float shrink = hn::GetLane(Exp(tag, hn::Sub(hn::Set(tag, state[0]), maximum)));
  state[0] = hn::GetLane(maximum);
  state[1] = state[1] * shrink + SumLanes(tag, total);
  return shrink;
}

HWY_INLINE void Scale(float* row, int64_t count, float factor) {
  const TagF tag;
  const auto lanes = static_cast<int64_t>(hn::Lanes(tag));
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    hn::StoreU(hn::Mul(hn::LoadU(tag, row + i), hn::Set(tag, factor)), tag, row + i);
  }
  for (; i < count; ++i) {
    row[i] *= factor;
  }
}

// A strip of query rows of one head and what it needs from its surroundings.
struct Strip {
  ConstMatrixF queries;  // [rows, D_k], scaled
  MatrixF outputs;       // [rows, D_v]
  float* states = nullptr;
  int64_t position = 0;  // of its first row
  int64_t window = 0;    // ChunkQueries::window

  // The first key that a row sees.
  [[nodiscard]] int64_t FirstSeen(int64_t row) const {
    return window > 0 ? std::max<int64_t>(0, position + row + 1 - window) : 0;
  }
};

void AccumulateTile(
    const Strip& strip, const float* keys, const float* values, int64_t first, int64_t count) {
  HWY_ALIGN float scores[kStrip * kKeyTile];
  // shape: scores [rows, count], rows kKeyTile apart
  const MatrixF view(scores, strip.queries.rows, count, kKeyTile);
  MultiplyStrip(strip.queries, keys, strip.queries.cols * kPanel, {}, view);
  for (int64_t r = 0; r < view.rows; ++r) {
    const int64_t seen = std::clamp<int64_t>(strip.position + r + 1 - first, 0, count);
    const int64_t hidden = std::clamp<int64_t>(strip.FirstSeen(r) - first, 0, count);
    if (hidden > 0 &&
        hidden >= seen) {  // in front of the row's window: there may be no maximum yet
      std::fill_n(view.row(r), count, 0.0F);
      continue;
    }
    const float shrink = UpdateSoftmax(view.row(r), hidden, seen, count, strip.states + 2 * r);
    Scale(strip.outputs.row(r), strip.outputs.cols, shrink);
  }
  MultiplyStrip(view, values, kKeyTile * kPanel, {true, nullptr}, strip.outputs);
}

void AccumulateStrip(const PrefillHead& head, const KeyBlock& block, const Strip& strip) {
  const int64_t last = strip.position + strip.queries.rows - 1;
  const int64_t end = std::min(block.first + kKeyBlock, last + 1);
  const int64_t key_tile = kKeyTile * strip.queries.cols;
  const int64_t value_tile = kKeyTile * PaddedWidth(head.values.width);
  for (int64_t first = block.first; first < end; first += kKeyTile) {
    if (first + kKeyTile <= strip.FirstSeen(0)) continue;
    const int64_t tile = (first - block.first) / kKeyTile;
    AccumulateTile(strip, block.keys + tile * key_tile, block.values + tile * value_tile, first,
                   std::min(kKeyTile, end - first));
  }
  for (int64_t r = 0; r < strip.queries.rows; ++r) {
    const int64_t own = strip.position + r;
    if (own >= block.first && own < block.first + kKeyBlock) {
      Scale(strip.outputs.row(r), strip.outputs.cols, 1.0F / strip.states[2 * r + 1]);
    }
  }
}

void Accumulate(const PrefillHead& head,
                const KeyBlock& block,
                const ChunkQueries& chunk,
                int64_t begin,
                int64_t end,
                float* states) {
  const int64_t width = head.queries[0].cols;
  const int64_t tokens = head.queries[0].rows;
  const int64_t stride = StripStride(width);
  float* scaled = Scratch(ScratchUse::kStrip, kStrip * stride);
  for (size_t h = 0; h < head.queries.size(); ++h) {
    for (int64_t row = begin; row < end; row += kStrip) {
      const int64_t rows = std::min<int64_t>(kStrip, end - row);
      if (chunk.first + row + rows <= block.first) {
        continue;
      }
      Strip strip;
      strip.queries = {scaled, rows, width, stride};
      strip.outputs = head.outputs[h].RowRange(row, rows);
      strip.states = states + 2 * (static_cast<int64_t>(h) * tokens + row);
      strip.position = chunk.first + row;
      strip.window = chunk.window;
      for (int64_t r = 0; r < rows; ++r) {
        std::copy_n(head.queries[h].row(row + r), width, scaled + r * stride);
        Scale(scaled + r * stride, width, chunk.scale);
        if (block.starts) {
          strip.states[2 * r] = -std::numeric_limits<float>::infinity();
          strip.states[2 * r + 1] = 0.0F;
          std::fill_n(strip.outputs.row(r), strip.outputs.cols, 0.0F);
        }
      }
      AccumulateStrip(head, block, strip);
    }
  }
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(LayOut);
HWY_EXPORT(Accumulate);

void LayOutTile(const PrefillHead& head, const KeyBlock& block, int64_t tile) {
  HWY_DYNAMIC_DISPATCH(LayOut)(head, block, tile);
}

void AccumulateBlock(const PrefillHead& head,
                     const KeyBlock& block,
                     const ChunkQueries& queries,
                     int64_t begin,
                     int64_t end,
                     float* states) {
  HWY_DYNAMIC_DISPATCH(Accumulate)(head, block, queries, begin, end, states);
}

}  // namespace kvc::kernels
#endif  // HWY_ONCE
