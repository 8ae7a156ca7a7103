#include "kernels/cuda/decode_attention.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/decode_case.h"

namespace kvc::cuda {
namespace {

std::vector<DecodeShape> Shapes() {
  std::vector<std::vector<SegmentSize>> skewed(7, {{40, 64, 64}});
  skewed.push_back({{1280, 64, 64}});  // 8 times the mean of 200 among 8 heads
  return {
      {"one row", 1, 1, {{{1, 64, 64}}}},
      {"no rows", 2, 3, {{{0, 64, 64}}}},
      {"no segments", 1, 2, {{}}},
      {"one head, 15 rows", 4, 3, {{{15, 64, 64}}}},
      {"one head, one block", 3, 1, {{{130, 64, 64}}}},
      {"uniform", 4, 5, {{{300, 64, 64}}, {{300, 64, 64}}}},
      {"ragged", 3, 7, {{{700, 64, 64}}, {{3, 64, 64}}, {{0, 64, 64}}, {{129, 64, 64}}}},
      {"skew 8", 2, 6, skewed},
      {"tiers",
       4,
       6,
       {{{90, 64, 64}, {140, 32, 48}, {333, 16, 16}, {40, 8, 8}},
        {{17, 64, 64}, {0, 32, 32}, {1, 32, 32}}}},
      {"odd widths", 8, 4, {{{77, 56, 64}, {50, 40, 24}, {99, 8, 8}, {65, 24, 40}}}},
      {"many small heads", 7, 2, std::vector<std::vector<SegmentSize>>(9, {{5, 64, 64}})},
      {"thin keys", 5, 4, {{{200, 16, 64}}, {{63, 16, 64}}}, 64},
      {"more blocks than tiles", 6, 40, {{{130, 64, 64}}}},
      {"wide tiers", 4, 5, {{{90, 128, 128}, {140, 64, 64}, {33, 32, 32}, {200, 16, 128}}}},
      {"wide odd", 8, 3, {{{64, 120, 72}, {1, 104, 128}}, {{100, 96, 96}}}},
  };
}

class DecodeAttentionTest : public testing::TestWithParam<DType> {
 protected:
  Rng rng_{21};
};

TEST_P(DecodeAttentionTest, AgreesWithDoubleOverOddShapes) {
  for (const DecodeShape& shape : Shapes()) {
    DecodeCase decode(shape, GetParam(), rng_);
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << shape.name;
  }
}

// Neither the order of threads and blocks nor a second launch (counters return to zero) changes a
// bit.
TEST_P(DecodeAttentionTest, IsDeterministic) {
  const DecodeShape shape = {
      "", 4, 6, {{{90, 64, 64}, {140, 32, 48}, {333, 16, 16}}, {{17, 64, 64}, {1, 32, 32}}}};
  DecodeCase decode(shape, GetParam(), rng_);
  const auto expected = decode.Run();
  EXPECT_EQ(decode.Run(2), expected);
  UnderOrders([&] { EXPECT_EQ(decode.Run(), expected); });
}

TEST_P(DecodeAttentionTest, EveryGroupSize) {
  for (int32_t group = 1; group <= kDecodeQueries; ++group) {
    DecodeCase decode({"", group, 2, {{{37, 64, 64}, {20, 24, 8}}}}, GetParam(), rng_);
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << group;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeAttentionTest, testing::ValuesIn(kFloatTypes));

// Costs of a plan's blocks: equal to within one tile; pieces cover every row once, in order.
TEST(DecodePlanTest, SharesAreEqualAndCoverAllRows) {
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    std::vector<DecodeSegment> segments;
    std::vector<int32_t> first = {0};
    std::vector<DecodeHead> heads;
    const auto num_heads = 1 + rng.NextBelow(20);
    for (int64_t h = 0; h < num_heads; ++h) {
      DecodeHead head;
      head.group = 1;
      head.query_width = head.output_width = 64;
      for (int64_t s = rng.NextBelow(4); s > 0; --s) {
        segments.push_back({nullptr, nullptr, static_cast<int32_t>(rng.NextBelow(1000)),
                            static_cast<int32_t>(8 + 8 * rng.NextBelow(8)),
                            static_cast<int32_t>(8 + 8 * rng.NextBelow(8))});
      }
      first.push_back(static_cast<int32_t>(segments.size()));
      heads.push_back(head);
    }
    const auto blocks = static_cast<int32_t>(1 + rng.NextBelow(40));
    const DecodePlan plan = PlanDecode(segments, first, heads, DType::kBF16, blocks);
    const auto cost_of = [&](const DecodeSegment& s, int64_t rows) {
      return (rows + 63) / 64 * (64 * (s.key_width + s.value_width) * 2 + 512);
    };
    double total = 0.0;
    double tile = 0.0;
    for (const DecodeSegment& s : segments) {
      total += static_cast<double>(cost_of(s, s.rows));
      tile = std::max(tile, static_cast<double>(cost_of(s, 1)));
    }
    std::vector<int32_t> next(segments.size(), 0);
    int32_t last_partial = -1;
    ASSERT_EQ(plan.first.size(), static_cast<size_t>(blocks) + 1);
    ASSERT_EQ(plan.first.back(), static_cast<int32_t>(plan.pieces.size()));
    for (int32_t b = 0; b < blocks; ++b) {
      double cost = 0.0;
      int32_t head_before = -1;
      for (int32_t p = plan.first[b]; p < plan.first[b + 1]; ++p) {
        const DecodePiece& piece = plan.pieces[p];
        const int32_t partial = plan.heads[piece.head].first_partial + piece.partial;
        // One partial result for each head of a block, numbered in order.
        ASSERT_EQ(partial, piece.head == head_before ? last_partial : last_partial + 1);
        last_partial = partial;
        head_before = piece.head;
        if (piece.begin == piece.end) {
          continue;
        }
        ASSERT_EQ(piece.begin, next[piece.segment]);
        next[piece.segment] = piece.end;
        cost += static_cast<double>(cost_of(segments[piece.segment], piece.end - piece.begin));
      }
      ASSERT_LE(std::abs(cost - total / blocks), tile + 1.0) << "block " << b;
    }
    for (size_t s = 0; s < segments.size(); ++s) {
      ASSERT_EQ(next[s], segments[s].rows);
    }
    ASSERT_EQ(plan.partials, last_partial + 1);
  }
}

TEST(DecodePlanTest, RefusesWhatTheKernelCannotRead) {
  DecodeHead head;
  head.group = 1;
  head.query_width = head.output_width = 64;
  const auto plan = [&](DecodeSegment segment, int32_t blocks) {
    return PlanDecode({segment}, {0, 1}, {head}, DType::kBF16, blocks);
  };
  EXPECT_NO_THROW((void)plan({nullptr, nullptr, 1, 64, 64}, 1));
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 72, 64}, 1), Error);
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 60, 64}, 1), Error);
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 64, 0}, 1), Error);
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 64, 64}, 0), Error);
  head.group = 9;
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 64, 64}, 1), Error);
  head.group = 8;
  head.query_width = 136;
  EXPECT_THROW((void)plan({nullptr, nullptr, 1, 64, 64}, 1), Error);
}

}  // namespace
}  // namespace kvc::cuda
