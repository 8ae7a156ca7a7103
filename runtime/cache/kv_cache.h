#pragma once
// The cache of one sequence (core/cache/cache_spec.h says what it is made of).
//
// A layer passes through three states:
//   empty
//   prompt   the recent block of each group holds every token so far at full width (the working
//            block), the query ring the newest queries
//   ready    with kFull the same; with a budget tiers and a recent block of window + margin rows;
//            in a layer that HoldsWindow a ring of the window's rows (cache_block.h)
// BeginLayer starts the second, Backend::Apply makes the third of it. With narrow tiers a tier has
// exactly the rows that it holds, and all of a group's tiers together take at most the bytes of its
// rows at full width.

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "core/cache/cache_spec.h"
#include "runtime/cache/cache_block.h"
#include "runtime/cache/coordinates.h"
#include "runtime/cache/metered_array.h"
#include "runtime/cache/row_moves.h"
#include "runtime/device.h"

namespace kvc::runtime {

struct GroupCache {
  std::vector<CacheBlock> tiers;  // by descending width, tokens oldest first in each
  CacheBlock recent;
  // In a layer with a window: positions of the tiers' rows, tier after tier.
  MeteredArray<int32_t> tier_positions;

  [[nodiscard]] int64_t tier_rows() const;  // tokens in the tiers
  // Positions of the rows of tier t; empty without a window.
  [[nodiscard]] std::span<const int32_t> PositionsOf(size_t t) const;
  [[nodiscard]] int64_t rows() const { return tier_rows() + recent.rows(); }
};

// The newest queries of a layer: row (position % ring) holds all query heads, head after head, each
// as wide as its group's keys are in the dot product.
class QueryRing {
 public:
  QueryRing() = default;
  QueryRing(const CacheSpec& spec, int64_t layer, int64_t rows, Device& device, CacheMeter& meter);

  [[nodiscard]] int64_t rows() const { return rows_; }
  // Queries that it has been given since the sequence began.
  [[nodiscard]] int64_t pushed() const { return pushed_; }
  // Queries that are there: min(rows, pushed).
  [[nodiscard]] int64_t count() const;
  // The row that holds the query number `number`.
  [[nodiscard]] int64_t RowOf(int64_t number) const { return number % rows_; }
  // What a backend says when it has written `count` queries more, or all that there is room for.
  void Pushed(int64_t count) { pushed_ += count; }
  [[nodiscard]] QueryRing Clone(CacheMeter& meter) const;
  // The same on another device, but for the queries themselves.
  [[nodiscard]] QueryRing WithRoomOn(Device& device, CacheMeter& meter) const;
  // A ring of `rows` rows with the newest queries of this one.
  [[nodiscard]] QueryRing Resized(int64_t rows, CacheMeter& meter) const;
  [[nodiscard]] int64_t num_heads() const { return std::ssize(offsets_) - 1; }
  // Floats of a row.
  [[nodiscard]] int64_t width() const { return offsets_.empty() ? 0 : offsets_.back(); }
  // Column where head h's queries begin.
  [[nodiscard]] int64_t offset(int64_t head) const { return offsets_[head]; }
  // Width of head h's queries.
  [[nodiscard]] int64_t width(int64_t head) const { return offsets_[head + 1] - offsets_[head]; }
  // [rows, width()] floats.
  [[nodiscard]] const Buffer& buffer() const { return data_; }

 private:
  int64_t rows_ = 0;
  int64_t pushed_ = 0;
  std::vector<int64_t> offsets_;  // [H + 1]
  Buffer data_;                   // [rows, offsets_[H]]
};

// What scoring says about the rows of a group, tiers first, then the recent block.
struct GroupScores {
  std::vector<float> scores;  // [rows], higher = keep
  // [rows, tiers], only with narrow tiers: the change of the output when a row is dropped (column
  // 0), or kept in tier t of spec.tiers (column t >= 1), summed over the group's heads.
  std::vector<double> losses;
};

// What a backend keeps with a layer's rows beside them, to find them quickly: it changes only when
// rows move, and may be thrown away at any time between two calls.
class LayerTables {
 public:
  virtual ~LayerTables() = default;
};

// What a backend knows of a layer and the host does not yet: what a rule has kept
// (Backend::ApplyRule). Until Backend::Settle, positions and scores of tiers are undefined on the
// host; numbers of rows are right.
class UnsettledRows {
 public:
  virtual ~UnsettledRows() = default;
};

struct LayerCache {
  std::vector<GroupCache> groups;  // [n]; empty before BeginLayer
  // With narrow tiers: what tiers and the recent block are stored in once the prompt is compressed.
  // The working block and the query ring hold rows as the model has them.
  std::unique_ptr<LayerCoordinates> coordinates;
  QueryRing queries;
  // Mean squared norm of what the layer reads, over the prompt's last `window` tokens.
  double residual_energy = 1.0;
  // Made by the backend when it needs them; not copied with the layer.
  std::unique_ptr<LayerTables> tables;
  // Null once the layer is settled; a layer that is not must not be copied.
  std::unique_ptr<UnsettledRows> unsettled;
  // kAdaModel, while the prompt goes through the layers behind: of its tokens, [n].
  std::vector<GroupScores> prompt_scores;

  [[nodiscard]] bool in_coordinates() const {
    return coordinates != nullptr && !groups.empty() && !groups[0].tiers.empty();
  }
};

class SequenceCache;

// Gives a layer's ring `rows` rows, with the newest queries; -1: it stays as it is.
void ResizeRing(int64_t rows, LayerCache& layer, SequenceCache& cache);

class SequenceCache {
 public:
  // `reserve`: rows that a kFull block is allocated with at least. The device must outlive it.
  // Throws kBadInput when the spec
  // contradicts itself, and when tiers narrower than a row have no bases to be stored in.
  SequenceCache(CacheSpec spec, int64_t reserve, Device& device);
  [[nodiscard]] std::unique_ptr<SequenceCache> Clone() const;

  [[nodiscard]] const CacheSpec& spec() const { return spec_; }
  [[nodiscard]] Device& device() const { return *device_; }
  [[nodiscard]] CacheMeter& meter() { return *meter_; }
  [[nodiscard]] const CacheMeter& meter() const { return *meter_; }
  [[nodiscard]] int64_t length() const { return length_; }
  void set_length(int64_t length) { length_ = length; }
  [[nodiscard]] LayerCache& layer(int64_t l) { return layers_[l]; }
  [[nodiscard]] const LayerCache& layer(int64_t l) const { return layers_[l]; }
  // Bytes of rows that hold tokens, with positions and scores, and the query rings.
  [[nodiscard]] int64_t logical_bytes() const;
  // Rows that the groups of a layer may hold at a length: RowsAt, spread within the layer by what
  // kAda found in the prompt.
  [[nodiscard]] std::vector<int64_t> RowsOfLayer(int64_t layer, int64_t length);
  // kAdaModel: the budget that the prompt asks for instead of the spec's, [L][n] in its unit.
  void set_budget(std::vector<std::vector<double>> budget);
  // kAda: the shares of the layer's groups in its rows.
  void set_layer_shares(int64_t layer, std::vector<double> shares);

  // Allocates the working blocks of a layer for a prompt of `length` tokens, and a ring of at least
  // `least_queries` rows.
  void BeginLayer(int64_t layer, int64_t length, int64_t least_queries);
  // In a layer with a window: writes down the positions of the tiers' rows after `moves` have been
  // executed. before: of each group what PositionsOf said of all tiers; first_recent: the position
  // of the first row that the recent (or working) blocks then had.
  void SetTierPositions(int64_t layer,
                        const LayerMoves& moves,
                        std::span<const std::vector<std::vector<int32_t>>> before,
                        int64_t first_recent);
  // The calibrated coordinates of a layer, or room for those of its prompt; only with narrow tiers.
  void MakeCoordinates(int64_t layer);

 private:
  CacheSpec spec_;
  int64_t reserve_ = 0;
  int64_t length_ = 0;
  Device* device_;
  std::unique_ptr<CacheMeter> meter_;  // before layers_: outlives their buffers
  std::vector<LayerCache> layers_;
  std::vector<std::vector<double>> shares_;  // kAda: [L][n]
  int64_t rows_length_ = -1;                 // length of rows_
  std::vector<std::vector<int64_t>> rows_;   // RowsAt(spec, rows_length_)
};

// Integers >= least that sum to max(total, n * least) and follow `weights` (largest remainders,
// ties by index), at most `most` each as long as the total allows it.
[[nodiscard]] std::vector<int64_t> Apportion(std::span<const double> weights,
                                             int64_t total,
                                             int64_t least,
                                             int64_t most);

}  // namespace kvc::runtime
