#include "core/cache/cache_spec.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/cache/cache_bases.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

// L layers of G single-head groups, or of one latent shared by all heads.
CacheSpec MakeSpec(int64_t layers, int64_t kv_heads, int64_t key_width, bool joint_latent) {
  CacheSpec spec;
  spec.num_heads = 3 * kv_heads;
  spec.num_kv_heads = kv_heads;
  spec.head_width = 64;
  spec.method = Method::kUniform;
  spec.margin = 8;
  spec.query_ring = 8;
  for (int64_t l = 0; l < layers; ++l) {
    std::vector<CacheGroup>& groups = spec.layers.emplace_back();
    if (joint_latent) {
      CacheGroup group{key_width, 64, {}, true};
      group.heads.resize(kv_heads);
      std::iota(group.heads.begin(), group.heads.end(), int64_t{0});
      groups.push_back(group);
    } else {
      for (int64_t g = 0; g < kv_heads; ++g) groups.push_back({key_width, 64, {g}, false});
    }
    spec.budget.emplace_back(groups.size(), 0.25);
  }
  return spec;
}

// A geometry whose keys and values have one format.
CacheGeometry In(const RowFormat& format) {
  CacheGeometry geometry;
  geometry.key_format = format;
  geometry.value_format = format;
  return geometry;
}

int64_t Sum(const std::vector<std::vector<int64_t>>& rows) {
  int64_t sum = 0;
  for (const auto& layer : rows) sum = std::accumulate(layer.begin(), layer.end(), sum);
  return sum;
}

TEST(CacheSpec, NamesRoundTrip) {
  for (const char* name : {"full", "streaming", "uniform", "pyramid", "ada", "headkv", "lukv"}) {
    EXPECT_EQ(MethodName(MethodFromName(name)), name);
  }
  for (const char* name : {"snapkv", "expected-attention", "keydiff", "knorm", "streaming"}) {
    EXPECT_EQ(ScorerName(ScorerFromName(name)), name);
  }
  EXPECT_THROW((void)MethodFromName("h2o"), Error);
  EXPECT_THROW((void)ScorerFromName(""), Error);
}

TEST(CacheSpec, BytesPerTokenCountsKeysValuesAndPositions) {
  const CacheGroup head{16, 64, {2}, false};
  EXPECT_EQ(BytesPerToken(In(kRowsF32), head), (16 + 64) * 4);
  EXPECT_EQ(BytesPerToken(In(kRowsBF16), head), (16 + 64) * 2);
  const CacheGroup latent{48, 64, {0, 1, 2}, true};
  EXPECT_EQ(BytesPerToken(In(kRowsF32), latent), (48 + 3 * 64) * 4 + 4);
  EXPECT_EQ(BytesPerToken(In(kRowsInt8), latent), (4 + 48) + 3 * (4 + 64) + 4);
  CacheGeometry apart = In(kRowsInt8);
  apart.value_format = kRowsBF16;
  EXPECT_EQ(BytesPerToken(apart, {18, 64, {0, 1}, false}), (4 + 20) + 2 * 64 * 2);
}

// Two layers of one head, of which the second sees 128 tokens; rows of 64 + 64 floats.
CacheSpec WithWindow() {
  CacheSpec spec = MakeSpec(2, 1, 64, false);
  spec.attention_windows = {0, 128};
  spec.sinks = 4;
  spec.window = 32;
  return spec;
}

TEST(CacheSpec, AWindowIsAllThatALayerHolds) {
  CacheSpec spec = WithWindow();
  constexpr int64_t kRow = int64_t{2} * 64 * 4;
  EXPECT_EQ(RowsAt(spec, 400), (std::vector<std::vector<int64_t>>{{100}, {45}}));  // at least 45
  spec.budget = {{0.5}, {0.5}};
  EXPECT_EQ(RowsAt(spec, 400), (std::vector<std::vector<int64_t>>{{200}, {64}}));
  EXPECT_EQ(RowsAt(spec, 100), (std::vector<std::vector<int64_t>>{{50}, {50}}));
  EXPECT_EQ(OriginalBytes(spec, 100), 200 * kRow);
  EXPECT_EQ(OriginalBytes(spec, 400), (400 + 128) * kRow);
  // 64 rows: 24 in the tier, 40 in the recent block, 32 of them in use.
  const CacheBytes bytes = PredictBytes(spec, 400);
  const int64_t first = 200 * kRow + 160 * kScoreBytes;
  EXPECT_EQ(bytes.allocated - 2 * QueryRingBytes(spec, 0),
            first + 64 * kRow + 24 * (kScoreBytes + kPositionBytes));
  EXPECT_EQ(bytes.logical - 2 * QueryRingBytes(spec, 0),
            first - 8 * kRow + 56 * kRow + 24 * (kScoreBytes + kPositionBytes));
  EXPECT_EQ(bytes.full, OriginalBytes(spec, 400));
  // Everything: nothing but the window's rows, whatever the length.
  const CacheSpec full = FullCache(spec);
  EXPECT_EQ(RowsAt(full, 400), (std::vector<std::vector<int64_t>>{{400}, {128}}));
  EXPECT_EQ(PredictBytes(full, 400).logical, (400 + 128) * kRow);
  EXPECT_EQ(PredictBytes(full, 400).allocated, (448 + 128) * kRow);
}

TEST(CacheSpec, ALayerHoldsItsWindowWhereNothingIsLeftOut) {
  CacheSpec spec = WithWindow();
  EXPECT_FALSE(HoldsWindow(spec, 0));
  EXPECT_FALSE(HoldsWindow(spec, 1));
  spec.budget[1] = {1.0};
  EXPECT_TRUE(HoldsWindow(spec, 1));
  EXPECT_TRUE(HoldsWindow(FullCache(spec), 1));
  spec.budget[1] = {0.5};
  spec.attention_windows[1] = MinRows(spec);  // no room for a tier
  EXPECT_TRUE(HoldsWindow(spec, 1));
  EXPECT_EQ(LayoutLayerRows(spec, 1, 45, 400).recent_rows, 45);
  EXPECT_EQ(LayoutLayerRows(spec, 1, 45, 400).tier_rows, 0);
}

// The query of the last of `steps` tokens behind `length` sees its window's rows.
TEST(CacheSpec, RowsLeaveTheWindowFromTheFront) {
  const CacheSpec spec = WithWindow();
  EXPECT_EQ(FirstRowSeen(spec, 0, 1000, 8), 0);
  EXPECT_EQ(FirstRowSeen(spec, 1, 120, 8), 0);
  EXPECT_EQ(FirstRowSeen(spec, 1, 121, 8), 1);  // token 128 sees 1 .. 128
  EXPECT_EQ(FirstRowSeen(spec, 1, 200, 1), 73);
}

TEST(CacheSpec, RowsOfSharesAddUpToTheFloorOfTheSum) {
  CacheSpec spec = MakeSpec(5, 3, 64, false);
  double sum = 0.0;
  for (size_t l = 0; l < 5; ++l) {
    for (size_t g = 0; g < 3; ++g) {
      spec.budget[l][g] = 0.2 + 0.013 * static_cast<double>(3 * l + g);
      sum += spec.budget[l][g];
    }
  }
  for (const int64_t length : {400, 777, 1001, 8192}) {
    EXPECT_EQ(Sum(RowsAt(spec, length)),
              static_cast<int64_t>(std::floor(sum * static_cast<double>(length) + 1e-6)));
  }
}

TEST(CacheSpec, RowsAreNeverBelowTheMinimumNorAboveTheLength) {
  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.budget[0][0] = 0.001;
  spec.budget[1][2] = 1.0;
  for (int64_t length = 1; length < 300; ++length) {
    for (const auto& layer : RowsAt(spec, length)) {
      for (const int64_t rows : layer) {
        EXPECT_GE(rows, std::min(length, MinRows(spec)));
        EXPECT_LE(rows, length);
      }
    }
  }
}

TEST(CacheSpec, RowBudgetsDoNotGrowWithTheLength) {
  CacheSpec spec = MakeSpec(1, 3, 64, false);
  spec.by_share = false;
  spec.budget = {{100, 200, 300}};
  EXPECT_EQ(RowsAt(spec, 4096), (std::vector<std::vector<int64_t>>{{100, 200, 300}}));
  EXPECT_EQ(RowsAt(spec, 150), (std::vector<std::vector<int64_t>>{{100, 150, 150}}));
}

TEST(CacheSpec, LayoutHoldsTheBudgetWithAFullRecentBlock) {
  const CacheSpec spec = MakeSpec(1, 3, 64, false);
  const GroupRows tight = LayoutRows(spec, 100, 400);
  EXPECT_EQ(tight.tier_rows + tight.recent_rows, 100);
  const GroupRows loose = LayoutRows(spec, 400, 400);
  EXPECT_EQ(loose.tier_rows, 400 - spec.window);
  EXPECT_EQ(LayoutRows(spec, 10, 10).tier_rows, 0);
}

// Recent rows in few bits leave bytes to the tiers, and let smaller budgets be possible.
TEST(CacheSpec, RecentRowsInFewBitsAreWorthLess) {
  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.key_format = kRowsBF16;
  spec.value_format = kRowsBF16;
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsX8, kRowsX8}};
  EXPECT_EQ(RecentWorth(spec), 40);
  EXPECT_EQ(MinRows(spec), 4 + 1 + 40);
  spec.recent_format = kRowsX8;
  EXPECT_NO_THROW(CheckTiers(spec));
  EXPECT_EQ(KeyFormat(spec, -1), kRowsX8);
  EXPECT_EQ(ValueFormat(spec, 0), kRowsBF16);
  EXPECT_EQ(RecentWorth(spec), 20);
  EXPECT_EQ(MinRows(spec), 4 + 1 + 20);
  const GroupRows layout = LayoutRows(spec, 100, 400);
  EXPECT_EQ(layout.tier_rows, 80);
  EXPECT_EQ(layout.recent_rows, 40);
  EXPECT_EQ(LayoutBytes(spec, 0, spec.layers[0][0], layout), 80 * (256 + 2) + 40 * 128);
  // 250 of 1,000 rows for each of six groups.
  const int64_t ring = int64_t{8} * 9 * 64 * 4;
  EXPECT_EQ(PredictBytes(spec, 1000).allocated, int64_t{6} * (230 * 258 + 40 * 128) + 2 * ring);
  // An odd number of rows rounds up.
  spec.window = 31;
  EXPECT_EQ(RecentWorth(spec), 20);
  EXPECT_EQ(KeyFormat(FullCache(spec), -1), kRowsBF16);
  spec.recent_format = kRowsX4;
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "add 1x4 to the tiers");
}

// Sums written out for one spec, independently of the code's loops.
TEST(CacheSpec, PredictedBytesOfAJointLatent) {
  const CacheSpec spec = MakeSpec(2, 3, 48, true);
  const CacheBytes bytes = PredictBytes(spec, 1000);
  EXPECT_EQ(bytes.full, 2 * 2 * 3 * 64 * 4 * 1000);
  const int64_t token = (48 + 192) * 4 + 4;
  const int64_t ring = int64_t{8} * 9 * 64 * 4;
  EXPECT_EQ(bytes.allocated, 2 * (250 * token + int64_t{250 - 40} * 2 + ring));
  EXPECT_EQ(bytes.logical, 2 * ((250 - 8) * token + int64_t{250 - 40} * 2 + ring));
}

TEST(CacheSpec, PredictedBytesOfAFullCacheRoundUp) {
  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.method = Method::kFull;
  EXPECT_EQ(PredictBytes(spec, 65).logical, PredictBytes(spec, 65).full);
  EXPECT_EQ(PredictBytes(spec, 65).allocated, PredictBytes(spec, 128).full);
}

// The original model caches in its own type, whatever this cache's rows are.
TEST(CacheSpec, TheOriginalsBytesDoNotDependOnTheFormat) {
  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.original_dtype = DType::kBF16;
  for (const RowFormat& format : {kRowsF32, kRowsF16, kRowsBF16, kRowsInt8}) {
    spec.key_format = format;
    spec.value_format = format;
    EXPECT_EQ(OriginalBytesPerToken(spec), 2 * 2 * 3 * 64 * 2);
    const CacheBytes whole = PredictBytes(FullCache(spec), 64);
    EXPECT_EQ(whole.full, 64 * 2 * 2 * 3 * 64 * 2);
    EXPECT_EQ(whole.logical, int64_t{64} * 2 * 3 * 2 * RowBytes(format, 64));
  }
}

// Keys in eight bits, values in sixteen; written out, independently of the code's loops.
TEST(CacheSpec, PredictedBytesOfMixedFormats) {
  CacheSpec spec = MakeSpec(2, 3, 48, true);
  spec.key_format = kRowsInt8;
  spec.value_format = kRowsF16;
  const int64_t token = (4 + 48) + 3 * 64 * 2 + 4;
  const int64_t ring = int64_t{8} * 9 * 64 * 4;
  EXPECT_EQ(PredictBytes(spec, 1000).allocated, 2 * (250 * token + int64_t{250 - 40} * 2 + ring));
}

TEST(CacheSpec, BudgetOfTheWrongShapeIsRefused) {
  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.budget.pop_back();
  EXPECT_THROW((void)RowsAt(spec, 100), Error);
}

CacheSpec TwoTierSpec() {
  CacheSpec spec;
  spec.layers = {{{16, 16, {0}, false}, {8, 16, {1}, true}}};
  spec.num_heads = 2;
  spec.num_kv_heads = 2;
  spec.head_width = 16;
  spec.method = Method::kUniform;
  spec.margin = 4;
  spec.tiers = {{1.0, 1.0}, {0.25, 0.5}, {0.125, 0.125}};
  spec.by_share = false;
  spec.budget = {{60, 60}};
  return spec;
}

TEST(CacheSpec, NarrowTiersChangeNoPromise) {
  CacheSpec spec = TwoTierSpec();
  EXPECT_TRUE(spec.has_narrow_tiers());
  EXPECT_NO_THROW(CheckTiers(spec));
  CacheSpec whole = spec;
  whole.tiers = {{1.0, 1.0}};
  EXPECT_FALSE(whole.has_narrow_tiers());
  EXPECT_FALSE(FullCache(spec).has_narrow_tiers());
  EXPECT_EQ(PredictBytes(spec, 100).allocated, PredictBytes(whole, 100).allocated);
  // Four key and eight value dimensions of the first group; a latent has no basis of its own.
  spec.basis = TierBasis::kPrompt;
  const int64_t basis = 4 * (4 * 16 + 8 * 16) + 4 * 8 * 16;
  EXPECT_EQ(PredictBytes(spec, 100).allocated, PredictBytes(whole, 100).allocated + basis);
  EXPECT_EQ(PredictBytes(spec, 100).logical, PredictBytes(whole, 100).logical + basis);
}

TEST(CacheSpec, TiersInFormatsOfTheirOwn) {
  CacheSpec spec = TwoTierSpec();
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsInt8, {}}};
  EXPECT_NO_THROW(CheckTiers(spec));
  EXPECT_TRUE(spec.has_narrow_tiers());
  EXPECT_EQ(KeyFormat(spec, -1), kRowsF32);
  EXPECT_EQ(KeyFormat(spec, 0), kRowsF32);
  EXPECT_EQ(KeyFormat(spec, 1), kRowsInt8);
  EXPECT_EQ(ValueFormat(spec, 1), kRowsF32);
}

TEST(CacheSpec, TiersCostElementsOrBytes) {
  const CacheGroup group{16, 16, {0, 1}, false};
  const std::vector<Tier> plain = {{1.0, 1.0}, {0.25, 0.5}};
  EXPECT_EQ(TierCosts(In(kRowsBF16), group, plain), (std::vector<int64_t>{48, 4 + 16}));
  // A row in eight bits has its scale beside its elements.
  EXPECT_EQ(TierCosts(In(kRowsInt8), group, plain),
            (std::vector<int64_t>{int64_t{3} * 20, (4 + 4) + int64_t{2} * (4 + 8)}));
  const std::vector<Tier> bits = {{1.0, 1.0}, {1.0, 1.0, kRowsInt8, {}}};
  EXPECT_EQ(TierCosts(In(kRowsBF16), group, bits),
            (std::vector<int64_t>{int64_t{3} * 32, 20 + int64_t{2} * 32}));
}

// A mixture costs what the head's runs take, and is a tier of whole rows of one head.
TEST(CacheSpec, MixturesAreTiersOfAHeadsOwnBytes) {
  LayerBases bases;
  bases.num_kv_heads = 2;
  bases.key_width = bases.value_width = 16;
  bases.key_steps.assign(size_t{2} * 3 * 16, 1.0F);
  bases.value_steps = bases.key_steps;
  bases.key_runs.assign(size_t{2} * kMixedRates, {0, 8, 16});
  bases.value_runs.assign(size_t{2} * kMixedRates, {16, 16, 16});
  bases.value_runs[kMixedRates + 11] = {0, 0, 8};  // head 1 in three bits
  const std::vector<Tier> tiers = {{1.0, 1.0}, {1.0, 1.0, MixedRows(12), MixedRows(12)}};
  EXPECT_EQ(TierCosts(In(kRowsBF16), {16, 16, {0}, false}, tiers, &bases),
            (std::vector<int64_t>{64, 8 + 16}));
  EXPECT_EQ(TierCosts(In(kRowsBF16), {16, 16, {1}, false}, tiers, &bases),
            (std::vector<int64_t>{64, 8 + 4}));

  CacheSpec spec = MakeSpec(2, 3, 64, false);
  spec.tiers = tiers;
  EXPECT_NO_THROW(CheckTiers(spec));
  spec.recent_format = MixedRows(12);
  EXPECT_KVC_ERROR(CheckTiers(spec), kUnsupported, "recent rows in avg3");
  spec.recent_format.reset();
  spec.tiers[1].value_share = 0.5;
  EXPECT_KVC_ERROR(CheckTiers(spec), kUnsupported, "expected all dimensions");
  spec.tiers = tiers;
  spec.basis = TierBasis::kPrompt;
  EXPECT_KVC_ERROR(CheckTiers(spec), kUnsupported, "--basis offline");
  spec.basis = TierBasis::kOffline;
  // Heads that share a group have their own bytes: values of 8 + 8, and of 4 + 4 in three bits.
  EXPECT_EQ(TierCosts(In(kRowsBF16), {16, 16, {0, 1}, true}, tiers, &bases),
            (std::vector<int64_t>{96, 8 + 16 + 4}));
}

TEST(CacheSpec, RefusesTiersThatDoNotFit) {
  CacheSpec spec = TwoTierSpec();
  spec.tiers = {{0.5, 1.0}};
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "full width in the cache's formats first");
  spec.tiers = {{1.0, 1.0}, {0.1, 1.0}};
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "got 0.1 of keys 8 wide");
  spec.tiers = {{1.0, 1.0}, {1.0, 0.05}};
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "got 0.05 of values 16 wide");
  spec.tiers = {{1.0, 1.0, {}, kRowsInt8}};
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "a format of its own");
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, {}, kRowsF32}};
  spec.value_format = kRowsF16;
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "values in at most the bits of the cache's f16");
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, RowFormat{RowElement::kInt8, RowScales::kFront, 8}, {}}};
  EXPECT_KVC_ERROR(CheckTiers(spec), kUnsupported, "row format");
  spec.tiers.assign(32, Tier{});
  EXPECT_KVC_ERROR(CheckTiers(spec), kBadInput, "at most 31");
}

}  // namespace
}  // namespace kvc
