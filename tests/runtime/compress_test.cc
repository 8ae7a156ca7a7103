
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "runtime/cache/kv_invariants.h"
#include "runtime/cache/kv_layout.h"
#include "runtime/cpu/cache_rows.h"
#include "runtime/cpu/host_device.h"
#include "tests/runtime/one_layer.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kWidth = 4;
constexpr int64_t kPositions = 512;

// One layer with one latent group over one kv head and two query heads. The rebuild is the identity
// without rotation, so a key is what was appended, and the cache says which tokens it holds.
struct Fixture {
  explicit Fixture(ScorerKind kind, CacheSpec policy) : pool(2), spec(std::move(policy)) {
    spec.num_heads = 2;
    spec.num_kv_heads = 1;
    spec.head_width = kWidth;
    spec.layers = {{{kWidth, kWidth, {0}, true}}};
    spec.scorer = kind;
    identity.assign(kWidth * kWidth, 0.0F);
    for (int64_t d = 0; d < kWidth; ++d) identity[d * kWidth + d] = 1.0F;
    cos.assign(kPositions * kWidth / 2, 1.0F);
    sin.assign(kPositions * kWidth / 2, 0.0F);
    step.num_heads = 2;
    step.num_kv_heads = 1;
    step.stored_width = kWidth;
    step.key_ranks = {kWidth};
    step.scale = 0.5F;
    step.latent = true;
    kernels::KeyRebuild rebuild;
    rebuild.rebuild = {identity.data(), kWidth, kWidth};
    rebuild.cos = {cos.data(), kPositions, kWidth / 2};
    rebuild.sin = {sin.data(), kPositions, kWidth / 2};
    rebuilds = {rebuild};
    scorer = scorers::Scorer::Create(kind);
    cache = std::make_unique<SequenceCache>(spec, 0, SharedHostDevice());
  }

  [[nodiscard]] LayerScoring Scoring() {
    LayerScoring scoring;
    scoring.scorer = scorer.get();
    scoring.attention = &step;
    scoring.rebuild = rebuilds;
    scoring.pool = &pool;
    return scoring;
  }
  [[nodiscard]] GroupCache& group() { return cache->layer(0).groups[0]; }

  // Appends one token whose key and value are `key`, and a query of ones.
  void Append(const std::vector<float>& key) {
    AppendRows({key.data(), 1, kWidth}, {key.data(), 1, kWidth}, cache->length(), group().recent);
    const std::vector<float> query(2 * kWidth, 1.0F);
    PushQueries({query.data(), 1, 2 * kWidth}, kWidth, cache->layer(0).queries);
    cache->set_length(cache->length() + 1);
  }
  void Prompt(const std::vector<std::vector<float>>& keys) {
    cache->BeginLayer(0, std::ssize(keys), spec.window);
    for (const auto& key : keys) Append(key);
    CompressLayer(Scoring(), *cache);
  }
  void Decode(const std::vector<float>& key) {
    if (group().recent.full()) ReallocateLayer(Scoring(), *cache);
    Append(key);
  }
  // Positions that the cache holds.
  [[nodiscard]] std::vector<int64_t> Held() {
    std::vector<int64_t> held;
    for (const int32_t p : group().tiers[0].positions()) held.push_back(p);
    for (const int32_t p : group().recent.positions()) held.push_back(p);
    return held;
  }

  ThreadPool pool;
  CacheSpec spec;
  std::vector<float> identity, cos, sin;
  AttentionStep step;
  std::vector<kernels::KeyRebuild> rebuilds;
  std::unique_ptr<scorers::Scorer> scorer;
  std::unique_ptr<SequenceCache> cache;
};

CacheSpec MakePolicy(int64_t sinks, int64_t window, int64_t margin, double budget, bool by_share) {
  CacheSpec spec;
  spec.method = Method::kUniform;
  spec.sinks = sinks;
  spec.window = window;
  spec.margin = margin;
  spec.query_ring = window;
  spec.by_share = by_share;
  spec.budget = {{budget}};
  return spec;
}

std::vector<std::vector<float>> RandomKeys(int64_t count, uint64_t seed) {
  Rng rng(seed);
  std::vector<std::vector<float>> keys(static_cast<size_t>(count));
  for (auto& key : keys) {
    key.resize(kWidth);
    for (float& x : key) x = static_cast<float>(rng.NextNormal());
  }
  return keys;
}

// The policy said once more, over sets of positions: what is kept after every step when token p has
// the score -|key p|.
class Reference {
 public:
  Reference(const CacheSpec& spec, const std::vector<std::vector<float>>& keys)
      : spec_(spec), keys_(keys) {}

  void Prompt(int64_t length) {
    for (int64_t p = 0; p < length; ++p) {
      (p < length - std::min(length, spec_.window) ? tier_ : recent_).push_back(p);
    }
    length_ = length;
    Trim();
  }
  void Decode() {
    if (std::ssize(recent_) == spec_.window + spec_.margin) {
      const auto moved = recent_.begin() + std::max<int64_t>(1, spec_.margin);
      tier_.insert(tier_.end(), recent_.begin(), moved);
      recent_.erase(recent_.begin(), moved);
      Trim();
    }
    recent_.push_back(length_++);
  }
  [[nodiscard]] std::vector<int64_t> Held() const {
    std::vector<int64_t> held = tier_;
    held.insert(held.end(), recent_.begin(), recent_.end());
    return held;
  }

 private:
  void Trim() {
    const int64_t rows = RowsAt(spec_, length_)[0][0];
    const int64_t room = LayoutRows(spec_, rows, length_).tier_rows;
    while (std::ssize(tier_) > room) {
      // Drops the largest norm behind the sinks.
      auto worst = tier_.end();
      for (auto it = tier_.begin(); it != tier_.end(); ++it) {
        if (*it < spec_.sinks) continue;
        if (worst == tier_.end() || Norm(*it) > Norm(*worst)) worst = it;
      }
      tier_.erase(worst);
    }
  }
  [[nodiscard]] double Norm(int64_t p) const {
    double sum = 0.0;
    for (const float x : keys_[p]) sum += static_cast<double>(x) * x;
    return sum;
  }

  CacheSpec spec_;
  const std::vector<std::vector<float>>& keys_;
  std::vector<int64_t> tier_, recent_;
  int64_t length_ = 0;
};

struct PolicyCase {
  int64_t sinks, window, margin;
  double budget;
  bool by_share;
  int64_t prompt;
};

class KnormPolicy : public ::testing::TestWithParam<PolicyCase> {};

TEST_P(KnormPolicy, KeepsWhatTheReferenceKeeps) {
  const PolicyCase& test = GetParam();
  Fixture fixture(ScorerKind::kKnorm,
                  MakePolicy(test.sinks, test.window, test.margin, test.budget, test.by_share));
  const auto keys = RandomKeys(200, 11);
  Reference reference(fixture.spec, keys);
  fixture.Prompt({keys.begin(), keys.begin() + test.prompt});
  reference.Prompt(test.prompt);
  EXPECT_EQ(fixture.Held(), reference.Held()) << "after the prompt";
  EXPECT_EQ(fixture.cache->meter().live_bytes(), PredictBytes(fixture.spec, test.prompt).allocated);
  EXPECT_EQ(fixture.cache->logical_bytes(), PredictBytes(fixture.spec, test.prompt).logical);
  for (int64_t p = test.prompt; p < std::ssize(keys); ++p) {
    fixture.Decode(keys[p]);
    reference.Decode();
    ASSERT_EQ(fixture.Held(), reference.Held()) << "token " << p;
    ASSERT_NO_THROW(CheckInvariants(*fixture.cache)) << "token " << p;
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes,
                         KnormPolicy,
                         ::testing::Values(PolicyCase{2, 4, 3, 20, false, 60},
                                           PolicyCase{2, 4, 3, 0.25, true, 60},
                                           PolicyCase{0, 1, 1, 5, false, 30},
                                           PolicyCase{4, 8, 8, 0.5, true, 100},
                                           PolicyCase{4, 8, 5, 24, false, 1},
                                           PolicyCase{4, 8, 5, 24, false, 7},
                                           PolicyCase{4, 8, 5, 24, false, 9},
                                           PolicyCase{4, 8, 5, 24, false, 13},
                                           PolicyCase{4, 8, 5, 24, false, 24},
                                           PolicyCase{3, 6, 0, 16, false, 40},
                                           PolicyCase{3, 0, 4, 16, false, 40},
                                           PolicyCase{2, 4, 3, 1.0, true, 50}));

TEST(Compress, StreamingKeepsSinksAndTheNewest) {
  CacheSpec policy = MakePolicy(2, 4, 3, 16, false);
  policy.method = Method::kStreaming;
  policy.query_ring = 0;
  Fixture fixture(ScorerKind::kStreaming, policy);
  const auto keys = RandomKeys(120, 5);
  fixture.Prompt({keys.begin(), keys.begin() + 40});
  for (int64_t p = 40; p < std::ssize(keys); ++p) {
    fixture.Decode(keys[p]);
    const auto held = fixture.Held();
    const auto rows = std::ssize(held);
    for (int64_t i = 0; i < rows; ++i) {
      ASSERT_EQ(held[i], i < 2 ? i : fixture.cache->length() - rows + i) << "token " << p;
    }
  }
}

// Queries are all ones: keys of large equal components receive nearly all attention.
TEST(Compress, SnapKvKeepsWhatIsLookedAt) {
  Fixture fixture(ScorerKind::kSnapKv, MakePolicy(2, 4, 4, 24, false));
  auto keys = RandomKeys(150, 3);
  for (const int64_t p : {10, 90}) keys[p].assign(kWidth, 6.0F);
  fixture.Prompt({keys.begin(), keys.begin() + 60});
  for (int64_t p = 60; p < std::ssize(keys); ++p) {
    fixture.Decode(keys[p]);
    ASSERT_NO_THROW(CheckInvariants(*fixture.cache));
  }
  const auto held = fixture.Held();
  for (const int64_t p : {10, 90}) {
    EXPECT_TRUE(std::find(held.begin(), held.end(), p) != held.end()) << p;
  }
}

TEST(Compress, ValuesStayWithTheirKeys) {
  Fixture fixture(ScorerKind::kKnorm, MakePolicy(1, 3, 2, 9, false));
  const auto keys = RandomKeys(80, 8);
  fixture.Prompt({keys.begin(), keys.begin() + 30});
  for (int64_t p = 30; p < std::ssize(keys); ++p) fixture.Decode(keys[p]);
  for (const CacheBlock* block : {&fixture.group().tiers[0], &fixture.group().recent}) {
    const auto* stored_keys = static_cast<const float*>(KeysOf(*block).data);
    const auto* stored_values = static_cast<const float*>(ValuesOf(*block, 0).data);
    for (int64_t row = 0; row < block->rows(); ++row) {
      for (int64_t d = 0; d < kWidth; ++d) {
        EXPECT_EQ(stored_keys[row * kWidth + d], keys[block->positions()[row]][d]);
        EXPECT_EQ(stored_values[row * kWidth + d], keys[block->positions()[row]][d]);
      }
    }
  }
}

TEST(SelectTop, IsTheSortedPrefix) {
  Rng rng(2);
  for (int trial = 0; trial < 200; ++trial) {
    std::vector<float> scores(static_cast<size_t>(rng.NextBelow(20)));
    for (float& score : scores) score = static_cast<float>(rng.NextBelow(6));
    const int64_t count = rng.NextBelow(22);
    std::vector<int64_t> expected(scores.size());
    std::iota(expected.begin(), expected.end(), int64_t{0});
    std::stable_sort(expected.begin(), expected.end(),
                     [&](int64_t a, int64_t b) { return scores[a] > scores[b]; });
    expected.resize(std::min<size_t>(expected.size(), static_cast<size_t>(count)));
    std::sort(expected.begin(), expected.end());
    EXPECT_EQ(SelectTop(scores, count), expected);
  }
}

TEST(AdaRows, FollowsTheScoresWithASafeguard) {
  // Group 0 holds the 12 best of all; each would get 6 of 12 free rows evenly.
  std::vector<std::vector<float>> scores(2, std::vector<float>(30, 0.1F));
  std::fill_n(scores[0].begin(), 12, 1.0F);
  const std::vector<int64_t> rows = {16, 16};
  // 12 * 0.8 + 6 * 0.2 = 10.8 and 0 * 0.8 + 6 * 0.2 = 1.2: 11 and 1.
  EXPECT_EQ(AdaRows(scores, rows, 10, 39), (std::vector<int64_t>{21, 11}));
  // Bounded from above, the rest goes back.
  EXPECT_EQ(AdaRows(scores, rows, 10, 18), (std::vector<int64_t>{18, 14}));
}

}  // namespace
}  // namespace kvc::runtime
