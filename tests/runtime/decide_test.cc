// Decisions, without any cache: numbers in, moves out.

#include "runtime/policy/decide.h"

#include <gtest/gtest.h>

#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

CacheSpec OneGroup() {
  CacheSpec spec;
  spec.num_heads = 2;
  spec.num_kv_heads = 1;
  spec.head_width = 8;
  spec.layers = {{{8, 8, {0}, false}}};
  spec.method = Method::kUniform;
  spec.sinks = 1;
  spec.window = 2;
  spec.margin = 3;
  spec.query_ring = 2;
  spec.tiers = {{1.0, 1.0}};
  return spec;
}

std::vector<RowSource> Recent(const std::vector<int64_t>& rows) {
  std::vector<RowSource> sources;
  for (const int64_t row : rows) sources.push_back({kRecentBlock, row});
  return sources;
}

TEST(DecidePrompt, KeepsSinksAndTheBest) {
  std::vector<GroupScores> scores = {{{0.0F, 5.0F, 1.0F, 5.0F, 4.0F, 9.0F, 9.0F}, {}}};
  const std::vector<int64_t> rows = {3};
  const LayerMoves moves = DecidePrompt(OneGroup(), 0, 7, scores, rows);
  ASSERT_EQ(moves.groups.size(), 1U);
  const RowMoves& group = moves.groups[0];
  ASSERT_EQ(group.tiers.size(), 1U);
  EXPECT_EQ(group.tiers[0].rows, Recent({0, 1, 3}));
  EXPECT_EQ(group.tiers[0].scores, (std::vector<float>{kPinned, 5.0F, 5.0F}));
  EXPECT_EQ(group.tiers[0].capacity, 3);
  EXPECT_EQ(group.leave_recent, 5);
  EXPECT_EQ(group.recent_capacity, 5);
  EXPECT_EQ(moves.query_rows, 2);
}

TEST(DecidePrompt, AShortPromptStaysInTheWindow) {
  std::vector<GroupScores> scores = {{{0.0F}, {}}};
  const std::vector<int64_t> rows = {3};
  const RowMoves group = DecidePrompt(OneGroup(), 0, 1, scores, rows).groups[0];
  EXPECT_TRUE(group.tiers[0].rows.empty());
  EXPECT_EQ(group.tiers[0].capacity, 3);
  EXPECT_EQ(group.leave_recent, 0);
}

TEST(DecideReallocation, StoredAndFreshScoresCompete) {
  const std::vector<float> stored = {kPinned, 6.0F, 2.0F};
  const std::vector<HeldRows> groups = {{{stored}, 5}};
  // Tier rows, then the recent block's five, of which the margin's three move.
  std::vector<GroupScores> fresh = {{{0.0F, 1.0F, 7.0F, 3.0F, 8.0F, 0.5F, 99.0F, 99.0F}, {}}};
  const std::vector<int64_t> rows = {4};
  const RowMoves group = DecideReallocation(OneGroup(), 0, 20, groups, fresh, rows).groups[0];
  const std::vector<RowSource> expected = {{0, 0}, {0, 1}, {0, 2}, {kRecentBlock, 1}};
  EXPECT_EQ(group.tiers[0].rows, expected);
  EXPECT_EQ(group.tiers[0].scores, (std::vector<float>{kPinned, 4.75F, 3.25F, 8.0F}));
  EXPECT_EQ(group.leave_recent, 3);
  EXPECT_EQ(group.recent_capacity, -1);
}

TEST(DecideReallocation, NarrowTiersShareTheBytes) {
  CacheSpec spec = OneGroup();
  spec.tiers = {{1.0, 1.0}, {0.5, 0.5}};
  const std::vector<float> wide = {kPinned};
  const std::vector<float> narrow = {5.0F};
  const std::vector<HeldRows> groups = {{{wide, narrow}, 5}};
  std::vector<GroupScores> fresh = {{{0.0F, 5.0F, 4.0F, 3.0F, 2.0F, 0.0F, 0.0F}, {}}};
  // Dropped, or kept in the narrow tier at a tenth of that.
  for (const double loss : {9.0, 5.0, 4.0, 3.0, 2.0}) {
    fresh[0].losses.insert(fresh[0].losses.end(), {loss, 0.1 * loss});
  }
  const std::vector<int64_t> rows = {2};
  const RowMoves group = DecideReallocation(spec, 0, 20, groups, fresh, rows).groups[0];
  ASSERT_EQ(group.tiers.size(), 2U);
  EXPECT_EQ(group.tiers[0].rows.front(), (RowSource{0, 0}));
  // What was narrow never gets its width back.
  for (const RowSource& source : group.tiers[0].rows) EXPECT_NE(source, (RowSource{1, 0}));
  int64_t bytes = 0;
  for (size_t t = 0; t < 2; ++t) {
    const auto held = std::ssize(group.tiers[t].rows);
    EXPECT_EQ(group.tiers[t].capacity, held);
    bytes += held * ShapeOf(spec, 0, 0, static_cast<int64_t>(t)).BytesPerRow();
  }
  EXPECT_LE(bytes, 2 * ShapeOf(spec, 0, 0, 0).BytesPerRow());
}

// A recent row in eight bits may stay so or lose bits, and never gets sixteen again.
TEST(DecideReallocation, RecentRowsInFewBitsKeepTheirBits) {
  CacheSpec spec = OneGroup();
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsX8, kRowsX8}, {1.0, 1.0, kRowsX2, kRowsX2}};
  spec.recent_format = kRowsX8;
  spec.bases = testing::RandomBases(spec, 3);
  const std::vector<float> whole = {kPinned};
  const std::vector<HeldRows> groups = {{{whole, {}, {}}, 5}};
  std::vector<GroupScores> fresh = {{{0.0F, 6.0F, 5.0F, 4.0F, 0.0F, 0.0F}, {}}};
  for (const double loss : {9.0, 6.0, 5.0, 4.0}) {
    fresh[0].losses.insert(fresh[0].losses.end(), {loss, 0.01 * loss, 0.2 * loss});
  }
  // Room for everything in sixteen bits, which rows of eight cannot use.
  const std::vector<int64_t> rows = {8};
  const RowMoves group = DecideReallocation(spec, 0, 20, groups, fresh, rows).groups[0];
  ASSERT_EQ(group.tiers.size(), 3U);
  EXPECT_EQ(group.tiers[0].rows, (std::vector<RowSource>{{0, 0}}));
  const std::vector<RowSource> expected = {{kRecentBlock, 0}, {kRecentBlock, 1}, {kRecentBlock, 2}};
  EXPECT_EQ(group.tiers[1].rows, expected);
  EXPECT_EQ(group.leave_recent, 3);
}

TEST(DecideGrowth, OnlyTheRecentBlockGrows) {
  CacheSpec spec = OneGroup();
  const std::vector<HeldRows> groups = {{{}, 5}};
  EXPECT_EQ(DecideGrowth(spec, 0, 5, groups).groups[0].recent_capacity, 5 + kFullCacheGranularity);
  spec.method = Method::kFull;
  EXPECT_EQ(DecideGrowth(spec, 0, 5, groups).groups[0].recent_capacity, kFullCacheGranularity);
  EXPECT_TRUE(DecideGrowth(spec, 0, 5, groups).groups[0].tiers.empty());
}

}  // namespace
}  // namespace kvc::runtime
