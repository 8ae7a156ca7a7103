// Policies that spread rows anew in each prompt.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "runtime/cache/kv_invariants.h"
#include "tests/runtime/loaded.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::Policy;
using testing::PrefillLast;

class SessionAda : public ::testing::TestWithParam<LayoutCase> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         SessionAda,
                         ::testing::ValuesIn(OnBackends(std::vector<std::string>{"llama"})),
                         LayoutName);

TEST_P(SessionAda, SpreadsWithinTheLayer) {
  Loaded loaded(GetParam());
  const CacheSpec spec = Policy(loaded.geometry(), Method::kAda, ScorerKind::kSnapKv, 0.5);
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
  // Both groups of a layer have rows of the same size, so the sum is the even one's.
  EXPECT_EQ(sequence->counters().allocated_bytes, PredictBytes(spec, 48).allocated);
  bool ragged = false;
  for (int64_t l = 0; l < 2; ++l) {
    const auto& groups = CacheOf(*sequence).layer(l).groups;
    ragged = ragged || groups[0].rows() != groups[1].rows();
  }
  EXPECT_TRUE(ragged);
  for (const int32_t id : RandomIds(40, 6)) {
    DecodeOne(*loaded.session, *sequence, id);
    ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
  }
}

// Rows of a group in the tiers.
int64_t TierRows(const Sequence& sequence, int64_t layer, int64_t group) {
  return CacheOf(sequence).layer(layer).groups[group].tier_rows();
}

// The rows that are free to move go to the highest scores of the whole model.
TEST_P(SessionAda, ModelHasOneThreshold) {
  Loaded loaded(GetParam());
  constexpr int64_t kLength = 48;
  const auto prompt = RandomIds(kLength, 1);
  CacheSpec spec = Policy(loaded.geometry(), Method::kAdaModel, ScorerKind::kOutputError, 0.5);
  const auto sequence = loaded.New(spec, DecodePolicy::kAppend);
  PrefillLast(*loaded.session, *sequence, prompt);
  // A cache of all tokens but one in each group has the scores.
  const auto all =
      loaded.New(Policy(loaded.geometry(), Method::kUniform, ScorerKind::kOutputError, 47, false),
                 DecodePolicy::kAppend);
  PrefillLast(*loaded.session, *all, prompt);
  const int64_t groups = std::ssize(spec.layers[0]);
  std::vector<std::pair<float, int64_t>> scores;  // (-score, group of the model)
  int64_t free = 0;
  const int64_t fixed = spec.sinks + 1 + spec.window;
  for (int64_t i = 0; i < groups * spec.num_layers(); ++i) {
    const GroupCache& group = CacheOf(*all).layer(i / groups).groups[i % groups];
    for (const float score : group.tiers[0].Scores()) {
      if (std::isfinite(score)) scores.emplace_back(-score, i);
    }
    free += kLength / 2 - fixed;
  }
  std::ranges::sort(scores);
  std::vector<int64_t> expected(groups * spec.num_layers(), fixed - spec.window);
  for (int64_t i = 0; i < free; ++i) ++expected[scores[i].second];
  EXPECT_GT(*std::ranges::max_element(expected), *std::ranges::min_element(expected) + 1);
  for (int64_t i = 0; i < std::ssize(expected); ++i) {
    EXPECT_EQ(TierRows(*sequence, i / groups, i % groups), expected[i]) << "group " << i;
  }
  EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
}

// The budget that a prompt asked for holds while decoding, and in clones.
TEST_P(SessionAda, ModelKeepsItsBudget) {
  Loaded loaded(GetParam());
  for (const bool by_share : {true, false}) {
    const CacheSpec spec = Policy(loaded.geometry(), Method::kAdaModel, ScorerKind::kOutputError,
                                  by_share ? 0.5 : 20, by_share);
    const auto sequence = loaded.New(spec);
    PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
    EXPECT_EQ(sequence->counters().allocated_bytes, PredictBytes(spec, 48).allocated);
    const auto clone = sequence->Clone();
    for (const int32_t id : RandomIds(40, 6)) {
      EXPECT_EQ(DecodeOne(*loaded.session, *sequence, id), DecodeOne(*loaded.session, *clone, id));
      ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    }
    const auto shortest = loaded.New(spec);
    PrefillLast(*loaded.session, *shortest, RandomIds(3, 1));
    EXPECT_EQ(TierRows(*shortest, 0, 0), TierRows(*shortest, 1, 0));
  }
}

}  // namespace
}  // namespace kvc::runtime
