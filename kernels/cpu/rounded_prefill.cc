#include "kernels/cpu/rounded_prefill.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "core/base/row_format.h"
#include "kernels/cpu/block_product.h"
#include "kernels/cpu/product.h"
#include "kernels/cpu/rounded_rows.h"
#include "kernels/cpu/scratch.h"

namespace kvc::kernels {
namespace {

constexpr int64_t kTile = 256;         // keys of one product
constexpr int64_t kTilesPerBlock = 4;  // tiles that are laid out at a time
constexpr int64_t kBlock = kTile * kTilesPerBlock;
constexpr int64_t kPartRows = 192;  // rows of one product: all query heads of a group

// Rows of a chunk, and the number of query heads that all its groups share. A part is kPartRows /
// H' query tokens of all H' query heads of a group, head after head.
struct Chunk {
  int64_t first = 0;   // position of the first query
  int64_t tokens = 0;  // T_c
  int64_t window = 0;
  float scale = 0.0F;
  int64_t group = 0;  // H'
  int64_t part_tokens = 0;

  [[nodiscard]] int64_t keys() const { return first + tokens; }
  [[nodiscard]] int64_t parts() const { return (tokens + part_tokens - 1) / part_tokens; }
};

int64_t KeyWidth(const PrefillHead& head) { return head.queries[0].cols; }  // D_k
int64_t ValueWidth(const PrefillHead& head) { return head.values.width; }   // D_v

// A group's tiles of keys [kTilesPerBlock][kTile, D_k] and values [kTilesPerBlock][D_v, kTile] as
// bf16; rows behind the last key are zero.
struct Tiles {
  uint16_t* keys = nullptr;
  uint16_t* values = nullptr;
};

// The products of a part of `tokens` query tokens with a tile.
struct PartProducts {
  std::shared_ptr<const BlockProduct> scores;   // [rows, D_k] by keys
  std::shared_ptr<const BlockProduct> outputs;  // [rows, kTile] by values

  PartProducts(const PrefillHead& head, int64_t rows)
      : scores(BlockProduct::Get({rows, kTile, KeyWidth(head)}, DType::kBF16)),
        outputs(BlockProduct::Get({rows, ValueWidth(head), kTile}, DType::kBF16)) {}
  [[nodiscard]] bool complete() const { return scores != nullptr && outputs != nullptr; }
};

bool IsBF16(const RowBlock& rows) { return rows.format == kRowsBF16; }

// Query tokens of a part, for groups of `group` query heads.
int64_t PartTokens(int64_t group) { return std::max<int64_t>(1, kPartRows / group); }

bool CanRound(std::span<const PrefillHead> heads) {
  const auto group = std::ssize(heads[0].queries);
  return std::ranges::all_of(heads, [&](const PrefillHead& head) {
    return std::ssize(head.queries) == group && IsBF16(head.keys) && IsBF16(head.values) &&
           PartProducts(head, group * PartTokens(group)).complete();
  });
}

const uint16_t* RowOf(const RowBlock& rows, int64_t r) {
  return reinterpret_cast<const uint16_t*>(static_cast<const char*>(rows.data) + r * rows.stride);
}

// Keys first .. first + count - 1 of a head as bf16 [count, D_k].
void LayOutKeys(const PrefillHead& head, int64_t first, int64_t count, uint16_t* target) {
  const int64_t width = KeyWidth(head);
  if (head.rebuild == nullptr) {
    for (int64_t r = 0; r < count; ++r) {
      std::copy_n(RowOf(head.keys, first + r), width, target + r * width);
    }
    return;
  }
  std::vector<int32_t> positions(static_cast<size_t>(count));
  std::iota(positions.begin(), positions.end(), static_cast<int32_t>(first));
  RowBlock latents = head.keys;
  latents.data = RowOf(head.keys, first);
  latents.rows = count;
  const MatrixF keys(Scratch(ScratchUse::kBlock, count * width), count, width);
  RebuildKeys(latents, positions, *head.rebuild, keys);
  RoundToBF16(keys.data, count * width, target);
}

void LayOutTile(const PrefillHead& head, const Tiles& tiles, int64_t first, int64_t tile) {
  const int64_t width = KeyWidth(head);
  const int64_t value_width = ValueWidth(head);
  const int64_t count = std::min(kTile, head.keys.rows - first);
  uint16_t* keys = tiles.keys + tile * kTile * width;
  uint16_t* values = tiles.values + tile * kTile * value_width;
  LayOutKeys(head, first, count, keys);
  std::fill(keys + count * width, keys + kTile * width, uint16_t{0});
  for (int64_t r = 0; r < kTile; ++r) {
    const uint16_t* row = r < count ? RowOf(head.values, first + r) : nullptr;
    for (int64_t c = 0; c < value_width; ++c) {
      values[c * kTile + r] = row == nullptr ? uint16_t{0} : row[c];
    }
  }
}

// One part of a group's queries against the tiles of a block.
class Part {
 public:
  Part(const PrefillHead& head, const Chunk& chunk, int64_t token, RowState* states)
      : head_(head),
        chunk_(chunk),
        token_(token),
        tokens_(std::min(chunk.part_tokens, chunk.tokens - token)),
        width_(KeyWidth(head)),
        value_width_(ValueWidth(head)),
        states_(states),
        products_(head, chunk.group * tokens_) {}

  // Adds keys `begin` .. of a block, which are the first that any row sees where `starts`.
  void Accumulate(const Tiles& tiles, int64_t begin, bool starts) {
    if (starts) Start();
    const int64_t end = std::min(begin + kBlock, chunk_.first + token_ + tokens_);
    if (begin < end) RoundQueries();
    for (int64_t first = begin; first < end; first += kTile) {
      const int64_t seen_from = FirstSeen(0);
      if (first + kTile <= seen_from) continue;
      const int64_t tile = (first - begin) / kTile;
      AccumulateTile(tiles.keys + tile * kTile * width_, tiles.values + tile * kTile * value_width_,
                     first);
    }
    Finish(begin);
  }

 private:
  [[nodiscard]] int64_t FirstSeen(int64_t t) const {
    const int64_t own = chunk_.first + token_ + t;
    return chunk_.window > 0 ? std::max<int64_t>(0, own + 1 - chunk_.window) : 0;
  }
  [[nodiscard]] float* Output(int64_t h, int64_t t) const {
    return head_.outputs[static_cast<size_t>(h)].row(token_ + t);
  }
  [[nodiscard]] RowState& State(int64_t h, int64_t t) const {
    return states_[h * chunk_.tokens + token_ + t];
  }

  void Start() {
    for (int64_t h = 0; h < chunk_.group; ++h) {
      for (int64_t t = 0; t < tokens_; ++t) {
        State(h, t) = {-std::numeric_limits<float>::infinity(), 0.0F};
        std::fill_n(Output(h, t), value_width_, 0.0F);
      }
    }
  }

  // shape: queries [H' tokens, D_k], scaled
  void RoundQueries() {
    queries_ =
        reinterpret_cast<uint16_t*>(Scratch(ScratchUse::kQueries, chunk_.group * tokens_ * width_));
    float* scaled = Scratch(ScratchUse::kStrip, width_);
    for (int64_t h = 0; h < chunk_.group; ++h) {
      for (int64_t t = 0; t < tokens_; ++t) {
        const float* row = head_.queries[static_cast<size_t>(h)].row(token_ + t);
        for (int64_t c = 0; c < width_; ++c) scaled[c] = row[c] * chunk_.scale;
        RoundToBF16(scaled, width_, queries_ + (h * tokens_ + t) * width_);
      }
    }
  }

  void AccumulateTile(const uint16_t* keys, const uint16_t* values, int64_t first) {
    const int64_t rows = chunk_.group * tokens_;
    float* scores = Scratch(ScratchUse::kScores, rows * kTile);      // [rows, kTile]
    float* shrink = Scratch(ScratchUse::kShrink, rows);              // [rows]
    float* more = Scratch(ScratchUse::kBlock, rows * value_width_);  // [rows, D_v]
    products_.scores->Run(queries_, keys, scores);
    // shape: probabilities [rows, kTile]
    auto* probabilities = reinterpret_cast<uint16_t*>(Scratch(ScratchUse::kPartials, rows * kTile));
    for (int64_t h = 0; h < chunk_.group; ++h) {
      for (int64_t t = 0; t < tokens_; ++t) {
        const int64_t r = h * tokens_ + t;
        const int64_t own = chunk_.first + token_ + t;
        const SeenKeys seen = {std::clamp<int64_t>(FirstSeen(t) - first, 0, kTile),
                               std::clamp<int64_t>(own + 1 - first, 0, kTile), kTile};
        uint16_t* target = probabilities + r * kTile;
        if (seen.hidden >= seen.seen) {  // there may be no maximum yet
          std::fill_n(target, kTile, uint16_t{0});
          shrink[r] = 1.0F;
        } else {
          shrink[r] = ProbabilitiesOf(scores + r * kTile, seen, State(h, t), target);
        }
      }
    }
    products_.outputs->Run(probabilities, values, more);
    for (int64_t r = 0; r < rows; ++r) {
      ShrinkAndAdd(Output(r / tokens_, r % tokens_), shrink[r], more + r * value_width_,
                   value_width_);
    }
  }

  // The block that holds a row's own key finishes the row.
  void Finish(int64_t begin) {
    for (int64_t t = 0; t < tokens_; ++t) {
      const int64_t own = chunk_.first + token_ + t;
      if (own < begin || own >= begin + kBlock) continue;
      for (int64_t h = 0; h < chunk_.group; ++h) {
        float* row = Output(h, t);
        const float sum = State(h, t).sum;
        for (int64_t c = 0; c < value_width_; ++c) row[c] /= sum;
      }
    }
  }

  const PrefillHead& head_;
  const Chunk& chunk_;
  int64_t token_, tokens_;
  int64_t width_, value_width_;
  RowState* states_;
  PartProducts products_;
  uint16_t* queries_ = nullptr;
};

// Buffers of a chunk: the tiles of every group and the states of all its query rows.
struct Buffers {
  Buffers(const Chunk& chunk, std::span<const PrefillHead> heads) {
    int64_t key_widths = 0;
    int64_t value_widths = 0;
    for (const PrefillHead& head : heads) {
      key_widths += KeyWidth(head);
      value_widths += ValueWidth(head);
    }
    // Two bf16 numbers take the place of a float; tiles are an even number of them.
    auto* keys =
        reinterpret_cast<uint16_t*>(Scratch(ScratchUse::kPrefillKeys, kBlock / 2 * key_widths));
    auto* values =
        reinterpret_cast<uint16_t*>(Scratch(ScratchUse::kPrefillValues, kBlock / 2 * value_widths));
    const int64_t rows = chunk.group * chunk.tokens;
    auto* row_states = reinterpret_cast<RowState*>(
        Scratch(ScratchUse::kPrefillStates, 2 * std::ssize(heads) * rows));
    for (const PrefillHead& head : heads) {
      tiles.push_back({keys, values});
      states.push_back(row_states);
      keys += kBlock * KeyWidth(head);
      values += kBlock * ValueWidth(head);
      row_states += rows;
    }
  }

  std::vector<Tiles> tiles;
  std::vector<RowState*> states;
};

}  // namespace

bool RoundedPrefillAttention(std::span<const PrefillHead> heads,
                             int64_t first,
                             float scale,
                             ThreadPool& pool,
                             int64_t window) {
  if (!CanRound(heads)) return false;
  const auto groups = std::ssize(heads);
  const auto group = std::ssize(heads[0].queries);
  const Chunk chunk = {first, heads[0].queries[0].rows, window, scale, group, PartTokens(group)};
  const Buffers buffers(chunk, heads);
  // No query sees the keys of tiles in front of this one.
  const int64_t start = window > 0 ? std::max<int64_t>(0, first - window + 1) / kTile * kTile : 0;
  for (int64_t begin = start; begin < chunk.keys(); begin += kBlock) {
    const int64_t tiles = (std::min(kBlock, chunk.keys() - begin) + kTile - 1) / kTile;
    pool.ParallelFor(groups * tiles, 1, [&](int64_t part, int64_t /*end*/) {
      const auto g = static_cast<size_t>(part / tiles);
      LayOutTile(heads[g], buffers.tiles[g], begin + part % tiles * kTile, part % tiles);
    });
    // The last rows see the most keys: they come first, so that threads end together.
    pool.ParallelFor(groups * chunk.parts(), 1, [&](int64_t part, int64_t /*end*/) {
      const auto g = static_cast<size_t>(part % groups);
      const int64_t token = (chunk.parts() - 1 - part / groups) * chunk.part_tokens;
      Part(heads[g], chunk, token, buffers.states[g])
          .Accumulate(buffers.tiles[g], begin, begin == start);
    });
  }
  return true;
}

}  // namespace kvc::kernels
