// Plans of decode attention: rows covered once, blocks with equal shares, the reader that fits.

#include <algorithm>
#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/rng.h"
#include "kernels/cuda/decode_attention.h"

namespace kvc::cuda {
namespace {

// A segment of a plan that no kernel runs.
DecodeSegment SegmentOf(int64_t rows, int64_t key_width, int64_t value_width, RowCode code) {
  const auto rows_of = [&](int64_t width) {
    const int64_t bytes = code == RowCode::kInt8  ? 4 + (width + 3) / 4 * 4
                          : code == RowCode::kF32 ? 4 * width
                                                  : 2 * width;
    return CachedRows{nullptr, code, static_cast<int32_t>(width), bytes};
  };
  return {rows_of(key_width), rows_of(value_width), static_cast<int32_t>(rows), nullptr};
}

DecodeHead HeadOf(int32_t group, int32_t width) {
  DecodeHead head;
  head.group = group;
  head.query_width = head.output_width = width;
  return head;
}

// Random caches: heads of 1 to 20 query heads, segments of any width and format.
struct RandomPlan {
  std::vector<DecodeSegment> segments;
  std::vector<int32_t> first = {0};
  std::vector<DecodeHead> heads;
  int32_t blocks;
  DecodePlan plan;

  explicit RandomPlan(Rng& rng) {
    for (int64_t h = 1 + rng.NextBelow(20); h > 0; --h) {
      for (int64_t s = rng.NextBelow(4); s > 0; --s) {
        segments.push_back(SegmentOf(rng.NextBelow(1000), 1 + rng.NextBelow(64),
                                     1 + rng.NextBelow(64),
                                     static_cast<RowCode>(rng.NextBelow(4))));
      }
      first.push_back(static_cast<int32_t>(segments.size()));
      heads.push_back(HeadOf(static_cast<int32_t>(1 + rng.NextBelow(20)), 64));
    }
    blocks = static_cast<int32_t>(1 + rng.NextBelow(40));
    plan = PlanDecode(segments, first, heads, blocks);
  }
  [[nodiscard]] double Cost(int32_t segment, int64_t rows) const {
    const DecodeSegment& s = segments[segment];
    return static_cast<double>((rows + 63) / 64 * (64 * (s.keys.stride + s.values.stride) + 512));
  }
};

// Pieces of each plan head cover its segments' rows once, in order.
void ExpectRowsCovered(const RandomPlan& random) {
  size_t piece = 0;
  size_t plan_head = 0;
  for (size_t h = 0; h < random.heads.size(); ++h) {
    int32_t queries = 0;
    for (; queries < random.heads[h].group; ++plan_head) {
      ASSERT_LE(random.plan.heads[plan_head].group, kDecodeQueries);
      queries += random.plan.heads[plan_head].group;
      for (int32_t s = random.first[h]; s < random.first[h + 1]; ++s) {
        for (int32_t row = 0; row < random.segments[s].rows; ++piece) {
          const DecodePiece& found = random.plan.pieces[piece];
          ASSERT_EQ(found.head, static_cast<int32_t>(plan_head));
          ASSERT_EQ(found.segment, s);
          ASSERT_EQ(found.begin, row);
          ASSERT_GT(found.end, row);
          row = found.end;
        }
      }
      if (piece < random.plan.pieces.size() && random.plan.pieces[piece].end == 0) ++piece;
    }
    ASSERT_EQ(queries, random.heads[h].group);
  }
  ASSERT_EQ(piece, random.plan.pieces.size());
}

// Costs of a plan's blocks are equal to within one tile.
void ExpectEqualShares(const RandomPlan& random) {
  double total = 0.0;
  double tile = 0.0;
  for (const DecodePiece& piece : random.plan.pieces) {
    if (piece.end == 0) continue;
    total += random.Cost(piece.segment, piece.end - piece.begin);
    tile = std::max(tile, random.Cost(piece.segment, 1));
  }
  int32_t last_partial = -1;
  for (int32_t b = 0; b < random.blocks; ++b) {
    double cost = 0.0;
    int32_t head_before = -1;
    for (int32_t p = random.plan.first[b]; p < random.plan.first[b + 1]; ++p) {
      const DecodePiece& piece = random.plan.pieces[p];
      const int32_t partial = random.plan.heads[piece.head].first_partial + piece.partial;
      // One partial result for each head of a block, numbered in order.
      ASSERT_EQ(partial, piece.head == head_before ? last_partial : last_partial + 1);
      last_partial = partial;
      head_before = piece.head;
      if (piece.end > 0) cost += random.Cost(piece.segment, piece.end - piece.begin);
    }
    ASSERT_LE(std::abs(cost - total / random.blocks), tile + 1.0) << "block " << b;
  }
  ASSERT_EQ(random.plan.partials, last_partial + 1);
}

TEST(DecodePlanTest, SharesAreEqualAndCoverAllRows) {
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    const RandomPlan random(rng);
    ASSERT_EQ(random.plan.first.size(), static_cast<size_t>(random.blocks) + 1);
    ASSERT_EQ(random.plan.first.back(), static_cast<int32_t>(random.plan.pieces.size()));
    ASSERT_NO_FATAL_FAILURE(ExpectRowsCovered(random));
    ASSERT_NO_FATAL_FAILURE(ExpectEqualShares(random));
    const auto heads = static_cast<int64_t>(random.plan.heads.size());
    int64_t segments = 0;  // of plan heads: one of 20 query heads is three
    for (size_t h = 0; h < random.heads.size(); ++h) {
      segments += (random.heads[h].group + 7) / 8 * (random.first[h + 1] - random.first[h]);
    }
    ASSERT_LE(std::ssize(random.plan.pieces), MostDecodePieces(heads, segments, random.blocks));
    ASSERT_LE(random.plan.partials, MostDecodePartials(heads, random.blocks));
  }
}

TEST(DecodePlanTest, ChoosesTheReaderByAllSegments) {
  const auto reader = [](const std::vector<DecodeSegment>& segments) {
    return PlanDecode(segments, {0, static_cast<int32_t>(segments.size())}, {HeadOf(4, 64)}, 3)
        .launch.reader;
  };
  const DecodeSegment bf16 = SegmentOf(9, 64, 64, RowCode::kBF16);
  EXPECT_EQ(reader({}), DecodeReader::kF32);
  EXPECT_EQ(reader({bf16, SegmentOf(0, 8, 16, RowCode::kBF16)}), DecodeReader::kBF16);
  EXPECT_EQ(reader({SegmentOf(9, 8, 16, RowCode::kF16)}), DecodeReader::kF16);
  EXPECT_EQ(reader({SegmentOf(9, 8, 16, RowCode::kF32)}), DecodeReader::kF32);
  EXPECT_EQ(reader({SegmentOf(9, 64, 64, RowCode::kInt8)}), DecodeReader::kMixed);
  EXPECT_EQ(reader({bf16, SegmentOf(0, 13, 16, RowCode::kBF16)}), DecodeReader::kMixed);
  EXPECT_EQ(reader({SegmentOf(9, 13, 16, RowCode::kF16)}), DecodeReader::kAny);
  EXPECT_EQ(reader({bf16, SegmentOf(9, 64, 64, RowCode::kF16)}), DecodeReader::kAny);
  DecodeSegment moved = bf16;
  moved.values.data = reinterpret_cast<void*>(8);
  EXPECT_EQ(reader({bf16, moved}), DecodeReader::kMixed);
  DecodeSegment apart = bf16;
  apart.keys.stride += 16;
  EXPECT_EQ(reader({apart}), DecodeReader::kMixed);
}

TEST(DecodePlanTest, RefusesWhatTheKernelCannotRead) {
  const auto plan = [](const DecodeSegment& segment, const DecodeHead& head, int32_t blocks) {
    return PlanDecode({segment}, {0, 1}, {head}, blocks);
  };
  const DecodeSegment good = SegmentOf(1, 64, 64, RowCode::kBF16);
  EXPECT_NO_THROW((void)plan(good, HeadOf(1, 64), 1));
  EXPECT_THROW((void)plan(SegmentOf(1, 65, 64, RowCode::kBF16), HeadOf(1, 64), 1), Error);
  EXPECT_THROW((void)plan(SegmentOf(1, 64, 0, RowCode::kBF16), HeadOf(1, 64), 1), Error);
  EXPECT_THROW((void)plan(SegmentOf(-1, 64, 64, RowCode::kBF16), HeadOf(1, 64), 1), Error);
  EXPECT_THROW((void)plan(good, HeadOf(1, 64), 0), Error);
  EXPECT_THROW((void)plan(good, HeadOf(0, 64), 1), Error);
  EXPECT_THROW((void)plan(good, HeadOf(1, 257), 1), Error);
  EXPECT_THROW((void)plan(good, HeadOf(1, 0), 1), Error);
  DecodeSegment segment = good;
  segment.keys.stride = 126;
  EXPECT_THROW((void)plan(segment, HeadOf(1, 64), 1), Error);
  segment = good;
  segment.keys.data = reinterpret_cast<void*>(1);
  EXPECT_THROW((void)plan(segment, HeadOf(1, 64), 1), Error);
  segment = SegmentOf(1, 64, 64, RowCode::kInt8);
  segment.values.stride += 2;
  EXPECT_THROW((void)plan(segment, HeadOf(1, 64), 1), Error);
  segment = SegmentOf(1, 64, 64, RowCode::kX4);
  EXPECT_THROW((void)plan(segment, HeadOf(1, 64), 1), Error) << "no steps";
  const float step = 1.0F;
  segment.keys.steps = segment.values.steps = &step;
  EXPECT_NO_THROW((void)plan(segment, HeadOf(1, 64), 1));
  DecodeHead latents = HeadOf(1, 64);
  latents.latents.packed = reinterpret_cast<const uint32_t*>(&step);
  latents.latents.rank = latents.latents.width = 64;
  latents.latents.places = 64;
  EXPECT_THROW((void)plan(segment, latents, 1), Error) << "latents in codes";
}

}  // namespace
}  // namespace kvc::cuda
