// Segment tables and batches of sequences, against softmax over all rows in double.

#include "runtime/cpu/decode_batch.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "runtime/cpu/apply_moves.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/host_device.h"
#include "runtime/cpu/scoring.h"
#include "runtime/cpu/store_rows.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kWidth = 4;

CacheSpec MakeSpec() {
  CacheSpec spec;
  spec.num_heads = 2;
  spec.num_kv_heads = 1;
  spec.head_width = kWidth;
  spec.layers = {{{kWidth, kWidth, {0}, false}}};
  spec.method = Method::kUniform;
  spec.scorer = ScorerKind::kKnorm;
  spec.sinks = 1;
  spec.window = 2;
  spec.margin = 3;
  spec.by_share = false;
  spec.budget = {{10.0}};
  spec.tiers = {{1.0, 1.0}};
  return spec;
}

AttentionStep MakeStep() {
  AttentionStep step;
  step.num_heads = 2;
  step.num_kv_heads = 1;
  step.stored_width = kWidth;
  step.key_ranks = {kWidth};
  step.scale = 0.5F;
  return step;
}

std::vector<float> Random(int64_t count, Rng& rng) {
  std::vector<float> values;
  for (int64_t i = 0; i < count; ++i) values.push_back(static_cast<float>(rng.NextNormal()));
  return values;
}

// A cache of one layer and the rows that it should hold, in the order of its blocks.
struct Held {
  explicit Held(int64_t length, Rng& rng) : cache(MakeSpec(), 0, SharedHostDevice()) {
    cache.BeginLayer(0, length, 0);
    for (int64_t t = 0; t < length; ++t) Append(rng);
  }
  void Append(Rng& rng) {
    keys.push_back(Random(kWidth, rng));
    values.push_back(Random(kWidth, rng));
    const std::vector<float> q(2 * kWidth, 0.0F);
    StoreRows(MakeStep(), {q.data(), 1, 2 * kWidth}, {keys.back().data(), 1, kWidth},
              {values.back().data(), 1, kWidth}, cache.length(), cache);
    cache.set_length(cache.length() + 1);
  }
  [[nodiscard]] std::vector<double> Attend(const float* q) const {
    std::vector<double> out(kWidth, 0.0);
    double sum = 0.0;
    for (size_t t = 0; t < keys.size(); ++t) {
      double dot = 0.0;
      for (int64_t d = 0; d < kWidth; ++d) dot += double{q[d]} * keys[t][d];
      const double p = std::exp(0.5 * dot);
      sum += p;
      for (int64_t d = 0; d < kWidth; ++d) out[d] += p * values[t][d];
    }
    for (double& x : out) x /= sum;
    return out;
  }

  SequenceCache cache;
  std::vector<std::vector<float>> keys, values;
};

void ExpectAttention(DecodeBatch& batch, const std::vector<Held*>& held, Rng& rng) {
  ThreadPool pool(2);
  const AttentionStep step = MakeStep();
  const auto rows = std::ssize(held);
  const std::vector<float> q = Random(rows * 2 * kWidth, rng);
  std::vector<float> out(q.size());
  batch.Start(step);
  for (int64_t b = 0; b < rows; ++b) {
    batch.Add(held[b]->cache, {}, {q.data() + b * 2 * kWidth, 1, 2 * kWidth},
              {out.data() + b * 2 * kWidth, 1, 2 * kWidth});
  }
  batch.Attend(pool);
  for (int64_t i = 0; i < 2 * rows; ++i) {
    const std::vector<double> expected = held[i / 2]->Attend(q.data() + i * kWidth);
    for (int64_t d = 0; d < kWidth; ++d) EXPECT_NEAR(out[i * kWidth + d], expected[d], 1e-5);
  }
}

TEST(DecodeBatch, TablesFollowAppendedAndMovedRows) {
  Rng rng(4);
  Held one(9, rng);
  Held two(30, rng);
  DecodeBatch batch;
  ExpectAttention(batch, {&one, &two}, rng);
  // Rows 0, 2 and 3 become a tier; rows 7 and 8 are recent.
  LayerMoves moves;
  RowMoves& group = moves.groups.emplace_back();
  group.tiers = {
      {4, {{kRecentBlock, 0}, {kRecentBlock, 2}, {kRecentBlock, 3}}, {1.0F, 1.0F, 1.0F}}};
  group.leave_recent = 7;
  group.recent_capacity = 5;
  ApplyMoves(moves, 0, one.cache);
  for (const size_t gone : {6U, 5U, 4U, 1U}) {
    one.keys.erase(one.keys.begin() + static_cast<int64_t>(gone));
    one.values.erase(one.values.begin() + static_cast<int64_t>(gone));
  }
  ExpectAttention(batch, {&two, &one}, rng);
  for (int i = 0; i < 3; ++i) {
    one.Append(rng);
    ExpectAttention(batch, {&one, &two}, rng);
  }
  ExpectAttention(batch, {&one}, rng);
}

// Scores come in the order of the blocks: tiers, then the recent block.
TEST(ScoreLayer, RanksWhatTheBlocksHold) {
  Rng rng(6);
  Held held(9, rng);
  LayerMoves moves;
  RowMoves& group = moves.groups.emplace_back();
  group.tiers = {{2, {{kRecentBlock, 5}, {kRecentBlock, 6}}, {1.0F, 1.0F}}};
  group.leave_recent = 7;
  group.recent_capacity = 5;
  ApplyMoves(moves, 0, held.cache);
  ThreadPool pool(2);
  const AttentionStep step = MakeStep();
  const auto scorer = scorers::Scorer::Create(ScorerKind::kKnorm);
  LayerScoring scoring;
  scoring.scorer = scorer.get();
  scoring.attention = &step;
  scoring.pool = &pool;
  const auto scores = ScoreLayer(scoring, held.cache.spec(), held.cache.layer(0));
  ASSERT_EQ(scores.size(), 1U);
  ASSERT_EQ(scores[0].scores.size(), 4U);
  for (size_t i = 0; i < 4; ++i) {
    double square = 0.0;
    for (const float x : held.keys[5 + i]) square += double{x} * x;
    EXPECT_NEAR(scores[0].scores[i], -std::sqrt(square), 1e-5) << i;
  }
}

TEST(MeanSquaredNorm, IsOfTheLastRows) {
  const std::vector<float> x = {1.0F, 2.0F, 3.0F, 4.0F, 5.0F, 6.0F};  // [3, 2]
  const ConstMatrixF rows(x.data(), 3, 2);
  EXPECT_DOUBLE_EQ(MeanSquaredNorm(rows, 2), (9.0 + 16.0 + 25.0 + 36.0) / 2.0);
  EXPECT_DOUBLE_EQ(MeanSquaredNorm(rows, 9), 91.0 / 3.0);
}

}  // namespace
}  // namespace kvc::runtime
