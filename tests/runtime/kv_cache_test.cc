#include "runtime/cache/kv_cache.h"

#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "runtime/cache/kv_invariants.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/host_device.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

// One layer, two groups of widths 3 and 2, two query heads for each.
CacheSpec SmallSpec() {
  CacheSpec spec;
  spec.num_heads = 4;
  spec.num_kv_heads = 2;
  spec.head_width = 4;
  spec.layers = {{{3, 4, {0}, false}, {2, 4, {1}, false}}};
  spec.method = Method::kUniform;
  spec.sinks = 1;
  spec.window = 3;
  spec.margin = 2;
  spec.query_ring = 3;
  spec.by_share = false;
  spec.budget = {{8, 8}};
  return spec;
}

TEST(Apportion, KeepsSumAndBounds) {
  Rng rng(7);
  for (int trial = 0; trial < 500; ++trial) {
    const int64_t n = 1 + rng.NextBelow(6);
    const int64_t least = rng.NextBelow(5);
    const int64_t most = least + rng.NextBelow(20);
    const int64_t total = n * least + rng.NextBelow(n * (most - least) + 1);
    std::vector<double> weights(static_cast<size_t>(n));
    for (double& weight : weights) weight = rng.NextBelow(3) == 0 ? 0.0 : rng.NextDouble();
    const auto rows = Apportion(weights, total, least, most);
    // All weights may be zero; then the rest is spread evenly.
    const int64_t sum = std::accumulate(rows.begin(), rows.end(), int64_t{0});
    EXPECT_EQ(sum, total) << "trial " << trial;
    for (const int64_t row : rows) {
      EXPECT_GE(row, least);
      EXPECT_LE(row, most);
    }
  }
}

TEST(Apportion, FollowsWeights) {
  EXPECT_EQ(Apportion(std::vector<double>{1, 2, 5}, 3 + 16, 1, 100),
            (std::vector<int64_t>{3, 5, 11}));
  // The second cannot take its share; the rest goes to the others in proportion.
  EXPECT_EQ(Apportion(std::vector<double>{1, 6, 1}, 16, 0, 8), (std::vector<int64_t>{4, 8, 4}));
  // A remainder goes to the largest fraction, ties to the first.
  EXPECT_EQ(Apportion(std::vector<double>{1, 1, 1}, 4, 0, 9), (std::vector<int64_t>{2, 1, 1}));
  EXPECT_EQ(Apportion({}, 0, 0, 0), std::vector<int64_t>{});
}

TEST(QueryRing, HoldsTheNewest) {
  const CacheSpec spec = SmallSpec();
  CacheMeter meter;
  for (const int64_t chunk : {1, 2, 3, 4, 7}) {
    QueryRing ring(spec, 0, 3, SharedHostDevice(), meter);
    EXPECT_EQ(meter.live_bytes(), QueryRingBytes(spec, 0));
    EXPECT_EQ(ring.width(0), 3);
    EXPECT_EQ(ring.width(3), 2);
    // q[t][h][d] = 100 t + 10 h + d, heads 3 wide as stored.
    std::vector<float> queries;
    for (int64_t t = 0; t < 8; ++t) {
      for (int64_t h = 0; h < 4; ++h) {
        for (int64_t d = 0; d < 3; ++d) {
          queries.push_back(static_cast<float>(100 * t + 10 * h + d));
        }
      }
    }
    for (int64_t t = 0; t < 8; t += chunk) {
      const int64_t rows = std::min<int64_t>(chunk, 8 - t);
      PushQueries({queries.data() + t * 12, rows, 12}, 3, ring);
      EXPECT_EQ(ring.count(), std::min<int64_t>(3, t + rows));
    }
    const auto expect_newest = [](const QueryRing& checked, int64_t count) {
      std::vector<float> out(static_cast<size_t>(count * 2));
      CopyQueries(checked, 2, {out.data(), count, 2});
      for (int64_t i = 0; i < count; ++i) {
        for (int64_t d = 0; d < 2; ++d) {
          EXPECT_EQ(out[i * 2 + d], static_cast<float>(100 * (8 - count + i) + 20 + d));
        }
      }
    };
    expect_newest(ring, 3);
    expect_newest(ring, 1);
    expect_newest(ring.Clone(meter), 3);
    expect_newest(ring.Resized(2, meter), 2);
    EXPECT_EQ(ring.Resized(0, meter).count(), 0);
    EXPECT_EQ(ring.Resized(5, meter).rows(), 5);
  }
}

TEST(SequenceCache, RefusesWhatItCannotHold) {
  CacheSpec spec = SmallSpec();
  spec.tiers = {{1.0, 1.0}, {0.5, 0.5}};
  EXPECT_KVC_ERROR(SequenceCache(spec, 0, SharedHostDevice()), kBadInput,
                   "bases.safetensors, got none");
  spec = SmallSpec();
  spec.window = spec.margin = 0;
  EXPECT_KVC_ERROR(SequenceCache(spec, 0, SharedHostDevice()), kBadInput, "window");
  spec = SmallSpec();
  spec.value_format = {RowElement::kInt8, RowScales::kNone, 0};
  EXPECT_KVC_ERROR(SequenceCache(spec, 0, SharedHostDevice()), kUnsupported, "row format");
}

// A consistent snapshot: 10 tokens, groups with positions.
CacheSnapshot GoodSnapshot() {
  CacheSnapshot snapshot;
  snapshot.spec = SmallSpec();
  snapshot.length = 10;
  GroupSnapshot group;
  const float pinned = std::numeric_limits<float>::infinity();
  group.tiers = {{3, 3, 8, {0, 2, 5}, {pinned, 0.5F, 0.1F}}};
  group.recent = {4, 5, 4, {6, 7, 8, 9}, {}};
  snapshot.layers = {{group, group}};
  snapshot.live_bytes = 2 * (3 * 8 + 5 * 4) + QueryRingBytes(snapshot.spec, 0);
  return snapshot;
}

TEST(Invariants, AcceptAConsistentCache) { EXPECT_TRUE(Violations(GoodSnapshot()).empty()); }

TEST(Invariants, FindEachViolation) {
  const auto broken = [](const auto& change, const char* text) {
    CacheSnapshot snapshot = GoodSnapshot();
    change(snapshot, snapshot.layers[0][1]);
    const auto violations = Violations(snapshot);
    ASSERT_FALSE(violations.empty()) << text;
    EXPECT_NE(violations[0].find(text), std::string::npos) << violations[0];
  };
  broken([](auto& s, auto&) { s.live_bytes += 1; }, "metered");
  broken([](auto&, auto& g) { g.tiers[0].capacity = 2; }, "holds 3 rows in 2");
  broken([](auto&, auto& g) { g.recent.positions[0] = 5; }, "newest tokens");
  broken([](auto&, auto& g) { g.tiers[0].positions[1] = 5; }, "do not ascend");
  broken([](auto&, auto& g) { g.tiers[0].positions[2] = 6; }, "in a tier and in the recent");
  broken([](auto&, auto& g) { g.tiers[0].scores[0] = 1.0F; }, "pins 0 sinks");
  broken([](auto&, auto& g) { g.tiers[0].scores[1] = std::nanf(""); }, "NaN");
  broken([](auto& s, auto&) { s.length = 6; }, "holds 7 rows of 6");
  broken(
      [](auto&, auto& g) {
        g.recent.rows = 2;
        g.recent.positions = {8, 9};
      },
      "less than the window");
}

TEST(Invariants, ReturnAllViolations) {
  CacheSnapshot snapshot = GoodSnapshot();
  snapshot.live_bytes = 0;
  snapshot.layers[0][0].tiers[0].scores[1] = std::nanf("");
  snapshot.layers[0][1].recent.rows = 9;
  EXPECT_GE(Violations(snapshot).size(), 4U);
}

}  // namespace
}  // namespace kvc::runtime
