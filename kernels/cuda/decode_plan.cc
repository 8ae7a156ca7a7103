#include <algorithm>
#include <cstdint>

#include "core/base/error.h"
#include "kernels/cuda/decode_attention.h"

namespace kvc::cuda {
namespace {

// What a tile costs beside its bytes, in bytes.
constexpr int64_t kTileCost = 512;
// What an element costs at least, in bytes: codes of few bits are unpacked in as many instructions
// as others.
constexpr double kElementCost = 0.75;

int64_t TilesOf(int64_t rows) { return (rows + kDecodeTileRows - 1) / kDecodeTileRows; }

int64_t BytesOfRow(const CachedRows& rows) { return CachedRowBytes(rows); }

int64_t CostOfRow(const CachedRows& rows) {
  return std::max(BytesOfRow(rows), static_cast<int64_t>(kElementCost * rows.width));
}

int64_t TileCost(const DecodeSegment& segment) {
  return kDecodeTileRows * (CostOfRow(segment.keys) + CostOfRow(segment.values)) + kTileCost;
}

void CheckHead(const DecodeHead& head, int index) {
  KVC_CHECK(head.group >= 1, kBadShape, "decode head {}: expected query heads, got {}", index,
            head.group);
  KVC_CHECK(std::min(head.query_width, head.output_width) >= 1 &&
                std::max(head.query_width, head.output_width) <= kMostDecodeWidth,
            kUnsupported, "decode head {}: expected widths of 1 to {}, got {} and {}", index,
            kMostDecodeWidth, head.query_width, head.output_width);
  const LatentKeys& latents = head.latents;
  if (latents.packed == nullptr) return;
  KVC_CHECK(latents.width == head.query_width &&
                latents.places == LatentPlaces(latents.width, latents.rotation.half),
            kBadShape, "decode head {}: expected latents of keys {} wide, got {} in {} places",
            index, head.query_width, latents.width, latents.places);
  KVC_CHECK(latents.places <= kMostDecodeWidth, kUnsupported,
            "decode head {}: expected keys of at most {} places, got {}", index, kMostDecodeWidth,
            latents.places);
}

bool HasLatents(const DecodeHead& head) { return head.latents.packed != nullptr; }

void CheckRows(const CachedRows& rows, int32_t most, const char* what, int index) {
  KVC_CHECK(rows.width >= 1 && rows.width <= most, kBadShape,
            "decode segment {}: expected {} of width 1 to {}, got {}", index, what, most,
            rows.width);
  KVC_CHECK(!HasSteps(rows.code) || rows.steps != nullptr, kBadShape,
            "decode segment {}: expected the steps of {}, got none", index, what);
  const int64_t bytes = BytesOfRow(rows);
  KVC_CHECK(rows.stride >= bytes, kBadShape,
            "decode segment {}: expected {} at least {} bytes apart, got {}", index, what, bytes,
            rows.stride);
  const uint64_t alignment = rows.code == RowCode::kF16 || rows.code == RowCode::kBF16 ? 2 : 4;
  const uint64_t address = reinterpret_cast<uintptr_t>(rows.data);
  KVC_CHECK((address | static_cast<uint64_t>(rows.stride)) % alignment == 0, kUnsupported,
            "decode segment {}: expected {} at multiples of {} bytes, got another address or "
            "stride",
            index, what, alignment);
}

void CheckSegment(const DecodeSegment& segment, const DecodeHead& head, int index) {
  KVC_CHECK(segment.rows >= 0, kBadShape, "decode segment {}: expected rows, got {}", index,
            segment.rows);
  CheckRows(segment.keys, HasLatents(head) ? head.latents.rank : head.query_width, "keys", index);
  CheckRows(segment.values, head.output_width, "values", index);
  if (HasLatents(head)) {
    CheckPlainRows(segment.keys, "latents of decode segment", static_cast<size_t>(index));
  }
}

// True for rows of this format that are copied 16 bytes at a time.
bool InWholeChunks(const CachedRows& rows, RowCode code) {
  return rows.code == code && rows.width % 8 == 0 && rows.stride == BytesOfRow(rows) &&
         reinterpret_cast<uintptr_t>(rows.data) % 16 == 0;
}

bool IsMixed(const CachedRows& rows) {
  return rows.code == RowCode::kBF16 || rows.code >= RowCode::kInt8;
}

// What reads all segments, whether they have rows or not: more rows change no reader.
DecodeReader ReaderOf(const std::vector<DecodeSegment>& segments,
                      const std::vector<DecodeHead>& heads) {
  const auto latents = std::count_if(heads.begin(), heads.end(), HasLatents);
  KVC_CHECK(latents == 0 || latents == std::ssize(heads), kBadShape,
            "decode plan: expected latents in all heads or in none, got them in {} of {}", latents,
            heads.size());
  if (latents > 0) return DecodeReader::kLatents;
  const RowCode code = segments.empty() ? RowCode::kF32 : segments[0].keys.code;
  bool whole = code < RowCode::kInt8;
  bool mixed = true;
  for (const DecodeSegment& segment : segments) {
    whole = whole && InWholeChunks(segment.keys, code) && InWholeChunks(segment.values, code);
    mixed = mixed && IsMixed(segment.keys) && IsMixed(segment.values);
  }
  if (!whole) return mixed ? DecodeReader::kMixed : DecodeReader::kAny;
  if (code == RowCode::kF32) return DecodeReader::kF32;
  return code == RowCode::kF16 ? DecodeReader::kF16 : DecodeReader::kBF16;
}

// The heads of at most kDecodeQueries query heads, of sizes as equal as can be, into which a head
// is split.
std::vector<DecodeHead> PartsOf(const DecodeHead& head) {
  const int32_t parts = (head.group + kDecodeQueries - 1) / kDecodeQueries;
  std::vector<DecodeHead> heads;
  for (int32_t i = 0; i < parts; ++i) {
    const int64_t first = int64_t{head.group} * i / parts;
    const int64_t end = int64_t{head.group} * (i + 1) / parts;
    DecodeHead part = head;
    part.group = static_cast<int32_t>(end - first);
    part.queries = head.queries + first * head.query_stride;
    part.outputs = head.outputs + first * head.output_stride;
    part.partials = 0;
    heads.push_back(part);
  }
  return heads;
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

// The cost of all tiles.
int64_t CheckAndSum(const std::vector<DecodeSegment>& segments,
                    const std::vector<int32_t>& segment_first,
                    const std::vector<DecodeHead>& heads) {
  int64_t total = 0;
  for (int h = 0; h < static_cast<int>(heads.size()); ++h) {
    CheckHead(heads[h], h);
    const int64_t parts = (heads[h].group + kDecodeQueries - 1) / kDecodeQueries;
    for (int32_t s = segment_first[h]; s < segment_first[h + 1]; ++s) {
      CheckSegment(segments[s], heads[h], s);
      total += parts * TilesOf(segments[s].rows) * TileCost(segments[s]);
    }
  }
  return total;
}

int32_t WidthOf(const std::vector<DecodeHead>& heads) {
  int32_t widest = 0;
  for (const DecodeHead& head : heads) {
    widest = std::max({widest, head.query_width, head.output_width, head.latents.places});
  }
  return widest <= 64 ? 64 : widest <= 128 ? 128 : kMostDecodeWidth;
}

}  // namespace

DecodePlan PlanDecode(const std::vector<DecodeSegment>& segments,
                      const std::vector<int32_t>& segment_first,
                      const std::vector<DecodeHead>& heads,
                      int32_t blocks) {
  KVC_CHECK(segment_first.size() == heads.size() + 1 && blocks >= 1, kBadShape,
            "decode plan: expected {} bounds of segments and a block, got {} and {} blocks",
            heads.size() + 1, segment_first.size(), blocks);
  DecodePlan plan;
  const int64_t total = CheckAndSum(segments, segment_first, heads);
  plan.launch = {ReaderOf(segments, heads), WidthOf(heads), blocks};
  const bool own =
      plan.launch.reader == DecodeReader::kBF16 || plan.launch.reader == DecodeReader::kLatents;
  if (plan.launch.width > 128 && !own) plan.launch.reader = DecodeReader::kAny;
  Dealer dealer(plan, total, blocks);
  for (size_t h = 0; h < heads.size(); ++h) {
    for (DecodeHead part : PartsOf(heads[h])) {
      part.first_partial = plan.partials;
      plan.heads.push_back(part);
      const auto index = static_cast<int32_t>(plan.heads.size()) - 1;
      dealer.BeginHead();
      for (int32_t s = segment_first[h]; s < segment_first[h + 1]; ++s) {
        dealer.Deal(index, s, segments[s].rows, TileCost(segments[s]));
      }
      if (plan.heads[index].partials == 0) {
        dealer.PutEmpty(index);
      }
    }
  }
  dealer.Finish();
  return plan;
}

int64_t DecodePartialFloats(int32_t width) { return int64_t{kDecodeQueries} * (width + 2); }

}  // namespace kvc::cuda
