// One layer's tiers, row by row: what they hold, how they are attended to, and where rows go.

#include "runtime/policy/tiering.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <memory>

#include <gtest/gtest.h>

#include "runtime/cache/kv_invariants.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/decode_batch.h"
#include "runtime/cpu/host_device.h"
#include "runtime/cpu/store_rows.h"
#include "tests/runtime/one_layer.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kWidth = 8;
constexpr int64_t kHeads = 4;    // query heads
constexpr int64_t kKvHeads = 2;  // each a group

CacheSpec MakeSpec(double rows) {
  CacheSpec spec;
  spec.num_heads = kHeads;
  spec.num_kv_heads = kKvHeads;
  spec.head_width = kWidth;
  spec.layers = {{{kWidth, kWidth, {0}, false}, {kWidth, kWidth, {1}, false}}};
  spec.method = Method::kUniform;
  spec.scorer = ParseScorer("output-error:reduce=mean,pool=1", "");
  spec.sinks = 2;
  spec.window = 4;
  spec.margin = 3;
  spec.query_ring = 4;
  spec.tiers = {{1.0, 1.0}, {0.5, 0.5}, {0.125, 0.25}};
  spec.by_share = false;
  spec.budget = {{rows, rows}};
  spec.bases = testing::RandomBases(spec, 21);
  return spec;
}

// The layer, fed with rows whose coordinates fall off quickly, so that every tier serves some.
struct Fixture {
  explicit Fixture(double rows) : pool(2), cache(MakeSpec(rows), 0, SharedHostDevice()), rng(5) {
    step.num_heads = kHeads;
    step.num_kv_heads = kKvHeads;
    step.stored_width = kWidth;
    step.key_ranks = {kWidth, kWidth};
    step.scale = 0.4F;
    scorer = scorers::Scorer::Create(cache.spec().scorer);
    gram.assign(kWidth * kWidth, 0.0F);
    for (int64_t d = 0; d < kWidth; ++d) gram[d * kWidth + d] = 1.0F;
    grams.assign(kHeads, ConstMatrixF(gram.data(), kWidth, kWidth));
  }

  LayerScoring Scoring() {
    LayerScoring scoring;
    scoring.scorer = scorer.get();
    scoring.attention = &step;
    scoring.output_grams = grams;
    scoring.pool = &pool;
    return scoring;
  }
  std::vector<float> Query() {
    std::vector<float> query;
    for (int64_t i = 0; i < kHeads * kWidth; ++i) {
      query.push_back(static_cast<float>(rng.NextNormal()));
    }
    return query;
  }
  std::vector<float> Row(bool key) {
    const LayerBases& bases = cache.spec().bases->front();
    std::vector<float> row;
    for (int64_t head = 0; head < kKvHeads; ++head) {
      const auto& back = key ? bases.query : bases.output;
      std::vector<double> x(kWidth, 0.0);
      for (int64_t c = 0; c < kWidth; ++c) {
        const double coordinate = rng.NextNormal() * std::pow(0.4, static_cast<double>(c));
        for (int64_t d = 0; d < kWidth; ++d) {
          x[d] += coordinate * back[(head * kWidth + d) * kWidth + c];
        }
      }
      for (const double value : x) row.push_back(static_cast<float>(value));
    }
    return row;
  }
  void Prompt(int64_t length) {
    cache.BeginLayer(0, length, cache.spec().window);
    for (int64_t t = 0; t < length; ++t) {
      const std::vector<float> k = Row(true);
      const std::vector<float> v = Row(false);
      const std::vector<float> q = Query();
      StoreRows(step, {q.data(), 1, kHeads * kWidth}, {k.data(), 1, kKvHeads * kWidth},
                {v.data(), 1, kKvHeads * kWidth}, t, cache);
    }
    cache.set_length(length);
    CompressLayer(Scoring(), cache);
  }
  // One token more; its output [H * D].
  std::vector<float> Decode(const std::vector<float>& q) {
    if (cache.layer(0).groups[0].recent.full()) {
      ReallocateLayer(Scoring(), cache);
    }
    const std::vector<float> k = Row(true);
    const std::vector<float> v = Row(false);
    std::vector<float> out(kHeads * kWidth);
    StoreRows(step, {q.data(), 1, kHeads * kWidth}, {k.data(), 1, kKvHeads * kWidth},
              {v.data(), 1, kKvHeads * kWidth}, cache.length(), cache);
    DecodeBatch batch;
    batch.Start(step);
    batch.Add(cache, {}, {q.data(), 1, kHeads * kWidth}, {out.data(), 1, kHeads * kWidth});
    batch.Attend(pool);
    cache.set_length(cache.length() + 1);
    return out;
  }

  ThreadPool pool;
  SequenceCache cache;
  Rng rng;
  AttentionStep step;
  std::unique_ptr<scorers::Scorer> scorer;
  std::vector<float> gram;
  std::vector<ConstMatrixF> grams;
};

// mean + x' back^T of one stored row, in double.
std::vector<double> Restored(const kernels::RowBlock& rows,
                             int64_t row,
                             const float* back,
                             const float* mean) {
  std::vector<double> x(mean, mean + kWidth);
  const float* stored = static_cast<const float*>(rows.data) + row * (rows.stride / 4);
  for (int64_t d = 0; d < kWidth; ++d) {
    for (int64_t c = 0; c < rows.width; ++c) x[d] += double{stored[c]} * back[d * kWidth + c];
  }
  return x;
}

// Softmax attention of query head h over what its kv head's blocks hold.
std::vector<double> Reference(const Fixture& fixture, const std::vector<float>& q, int64_t h) {
  const int64_t g = h / (kHeads / kKvHeads);
  const LayerBases& bases = fixture.cache.spec().bases->front();
  const GroupCache& group = fixture.cache.layer(0).groups[g];
  std::vector<const CacheBlock*> blocks = {&group.recent};
  for (const CacheBlock& tier : group.tiers) blocks.push_back(&tier);
  std::vector<double> sum(kWidth, 0.0);
  double total = 0.0;
  const int64_t at = g * kWidth * kWidth;
  for (const CacheBlock* block : blocks) {
    for (int64_t row = 0; row < block->rows(); ++row) {
      const auto key = Restored(KeysOf(*block), row, bases.query.data() + at,
                                bases.key_mean.data() + g * kWidth);
      const auto value = Restored(ValuesOf(*block, 0), row, bases.output.data() + at,
                                  bases.value_mean.data() + g * kWidth);
      double logit = 0.0;
      for (int64_t d = 0; d < kWidth; ++d) logit += double{q[h * kWidth + d]} * key[d];
      const double p = std::exp(double{fixture.step.scale} * logit);
      total += p;
      for (int64_t d = 0; d < kWidth; ++d) sum[d] += p * value[d];
    }
  }
  for (double& x : sum) x /= total;
  return sum;
}

TEST(Tiering, AttentionSeesWhatTheTiersHold) {
  Fixture fixture(24);
  fixture.Prompt(60);
  std::vector<int64_t> rows(3, 0);
  for (int64_t t = 0; t < 40; ++t) {
    const std::vector<float> q = fixture.Query();
    const std::vector<float> out = fixture.Decode(q);
    for (int64_t h = 0; h < kHeads; ++h) {
      const std::vector<double> expected = Reference(fixture, q, h);
      for (int64_t d = 0; d < kWidth; ++d) {
        ASSERT_NEAR(out[h * kWidth + d], expected[d], 1e-4) << "token " << t << " head " << h;
      }
    }
    for (const GroupCache& group : fixture.cache.layer(0).groups) {
      for (size_t tier = 0; tier < 3; ++tier) rows[tier] += group.tiers[tier].rows();
    }
  }
  for (const int64_t count : rows) EXPECT_GT(count, 40) << "a tier that was not tested";
}

// The first coordinate of a row never changes its bits, so that it names the token.
TEST(Tiering, TokensOnlyMoveDown) {
  Fixture fixture(24);
  fixture.Prompt(60);
  std::map<float, size_t> tier_of;
  int64_t moves = 0;
  for (int64_t t = 0; t < 120; ++t) {
    fixture.Decode(fixture.Query());
    ASSERT_NO_THROW(CheckInvariants(fixture.cache));
    std::map<float, size_t> now;
    const GroupCache& group = fixture.cache.layer(0).groups[0];
    for (size_t tier = 0; tier < 3; ++tier) {
      const kernels::RowBlock keys = KeysOf(group.tiers[tier]);
      for (int64_t row = 0; row < keys.rows; ++row) {
        float name = 0.0F;
        std::memcpy(&name, static_cast<const std::byte*>(keys.data) + row * keys.stride,
                    sizeof(name));
        EXPECT_TRUE(now.emplace(name, tier).second) << "a token is held twice";
        const auto before = tier_of.find(name);
        if (before == tier_of.end()) continue;
        EXPECT_GE(tier, before->second) << "a token got dimensions back";
        moves += tier > before->second ? 1 : 0;
      }
    }
    tier_of = std::move(now);
  }
  EXPECT_GT(moves, 10);
}

TEST(Tiering, SinksKeepTheirWidth) {
  Fixture fixture(14);
  fixture.Prompt(1);  // the second sink comes while decoding
  for (int64_t t = 0; t < 100; ++t) {
    fixture.Decode(fixture.Query());
    ASSERT_NO_THROW(CheckInvariants(fixture.cache));
  }
  for (const GroupCache& group : fixture.cache.layer(0).groups) {
    const auto scores = group.tiers[0].Scores();
    EXPECT_EQ(std::ranges::count_if(scores, [](float score) { return std::isinf(score); }), 2);
  }
}

}  // namespace
}  // namespace kvc::runtime
