#include <algorithm>
#include <cstdint>

#include "core/base/error.h"
#include "kernels/cuda/decode_attention.h"

namespace kvc::cuda {
namespace {

// What a tile costs beside its bytes, in bytes.
constexpr int64_t kTileCost = 512;

int64_t TilesOf(int64_t rows) { return (rows + kDecodeTileRows - 1) / kDecodeTileRows; }

int64_t TileCost(const DecodeSegment& segment, DType rows) {
  const int64_t elements = int64_t{kDecodeTileRows} * (segment.key_width + segment.value_width);
  return elements * DTypeBytes(rows) + kTileCost;
}

void CheckHead(const DecodeHead& head, int index) {
  KVC_CHECK(head.group >= 1 && head.group <= kDecodeQueries, kUnsupported,
            "decode head {}: expected 1 to {} query heads, got {}", index, kDecodeQueries,
            head.group);
  const int32_t widest = std::max(head.query_width, head.output_width);
  KVC_CHECK(head.query_width % 8 == 0 && head.output_width % 8 == 0 && widest <= kMostDecodeWidth,
            kUnsupported,
            "decode head {}: expected widths that are multiples of 8 up to {}, got {} and {}",
            index, kMostDecodeWidth, head.query_width, head.output_width);
}

void CheckSegment(const DecodeSegment& segment, const DecodeHead& head, int index) {
  KVC_CHECK(
      segment.rows >= 0 && segment.key_width % 8 == 0 && segment.value_width % 8 == 0 &&
          segment.key_width > 0 && segment.key_width <= head.query_width &&
          segment.value_width > 0 && segment.value_width <= head.output_width,
      kBadShape,
      "decode segment {}: expected widths that are multiples of 8 up to {} and {}, got {} and {}",
      index, head.query_width, head.output_width, segment.key_width, segment.value_width);
}

// Places tiles one after the other; a tile belongs to the block in whose share its middle lies.
class Dealer {
 public:
  Dealer(DecodePlan& plan, int64_t total, int64_t blocks)
      : plan_(plan), total_(std::max<int64_t>(total, 1)), blocks_(blocks) {
    plan_.first.assign(static_cast<size_t>(blocks) + 1, 0);
  }

  void BeginHead() { last_block_ = -1; }

  // All rows of a segment whose tiles cost `cost` each.
  void Deal(int32_t head, int32_t segment, int32_t rows, int64_t cost) {
    for (int32_t row = 0; row < rows;) {
      const int64_t block = BlockOf(cost);
      // The first tile, counted from here, whose middle lies beyond the block's share.
      const int64_t numerator = 2 * (block + 1) * total_ - (2 * before_ + cost) * blocks_;
      const int64_t step = 2 * cost * blocks_;
      const int64_t tiles = std::max<int64_t>(1, (numerator + step - 1) / step);
      const auto end = static_cast<int32_t>(std::min<int64_t>(rows, row + tiles * kDecodeTileRows));
      Put(block, {head, segment, row, end, 0});
      before_ += TilesOf(end - row) * cost;
      row = end;
    }
  }

  // A piece without rows, whose block writes the zeros.
  void PutEmpty(int32_t head) { Put(BlockOf(0), {head, 0, 0, 0, 0}); }

  void Finish() {
    for (size_t block = 1; block < plan_.first.size(); ++block) {
      plan_.first[block] += plan_.first[block - 1];
    }
  }

 private:
  [[nodiscard]] int64_t BlockOf(int64_t cost) const {
    return std::min(blocks_ - 1, (2 * before_ + cost) * blocks_ / (2 * total_));
  }

  void Put(int64_t block, DecodePiece piece) {
    DecodeHead& head = plan_.heads[piece.head];
    if (block != last_block_) {
      ++head.partials;
      ++plan_.partials;
      last_block_ = block;
    }
    piece.partial = head.partials - 1;
    plan_.pieces.push_back(piece);
    ++plan_.first[static_cast<size_t>(block) + 1];  // counts, summed by Finish
  }

  DecodePlan& plan_;
  int64_t total_;  // cost of all tiles
  int64_t blocks_;
  int64_t before_ = 0;  // cost of the tiles placed
  int64_t last_block_ = -1;
};

int64_t CheckAndSum(const std::vector<DecodeSegment>& segments,
                    const std::vector<int32_t>& segment_first,
                    DecodePlan& plan,
                    DType rows) {
  int64_t total = 0;
  int32_t widest = 0;
  for (int h = 0; h < static_cast<int>(plan.heads.size()); ++h) {
    const DecodeHead& head = plan.heads[h];
    CheckHead(head, h);
    widest = std::max({widest, head.query_width, head.output_width});
    for (int32_t s = segment_first[h]; s < segment_first[h + 1]; ++s) {
      CheckSegment(segments[s], head, s);
      total += TilesOf(segments[s].rows) * TileCost(segments[s], rows);
    }
  }
  plan.width = widest <= 64 ? 64 : 128;
  return total;
}

}  // namespace

DecodePlan PlanDecode(const std::vector<DecodeSegment>& segments,
                      const std::vector<int32_t>& segment_first,
                      const std::vector<DecodeHead>& heads,
                      DType rows,
                      int32_t blocks) {
  KVC_CHECK(segment_first.size() == heads.size() + 1 && blocks >= 1, kBadShape,
            "decode plan: expected {} bounds of segments and a block, got {} and {} blocks",
            heads.size() + 1, segment_first.size(), blocks);
  DecodePlan plan;
  plan.heads = heads;
  const int64_t total = CheckAndSum(segments, segment_first, plan, rows);
  Dealer dealer(plan, total, blocks);
  for (int32_t h = 0; h < static_cast<int32_t>(heads.size()); ++h) {
    plan.heads[h].first_partial = plan.partials;
    plan.heads[h].partials = 0;
    dealer.BeginHead();
    for (int32_t s = segment_first[h]; s < segment_first[h + 1]; ++s) {
      dealer.Deal(h, s, segments[s].rows, TileCost(segments[s], rows));
    }
    if (plan.heads[h].partials == 0) {
      dealer.PutEmpty(h);
    }
  }
  dealer.Finish();
  return plan;
}

int64_t DecodePartialFloats(int32_t width) { return int64_t{kDecodeQueries} * (width + 2); }

}  // namespace kvc::cuda
