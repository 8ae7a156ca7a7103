// Scores of a prompt that several caches share: only those that ask for the same ones.

#include "runtime/policy/prompt_scores.h"

#include <functional>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "scorers/scorer.h"

namespace kvc::runtime {
namespace {

CacheSpec Narrow() {
  CacheSpec spec;
  spec.method = Method::kUniform;
  spec.num_heads = 1;
  spec.num_kv_heads = 1;
  spec.head_width = 16;
  CacheGroup group;
  group.heads = {0};
  group.key_width = 16;
  group.value_width = 16;
  spec.layers = {{group}};
  spec.tiers = {Tier(), Tier()};
  spec.tiers[1].key_format = kRowsX4;
  spec.tiers[1].value_format = kRowsX4;
  return spec;
}

TEST(PromptScores, AreSharedByCachesThatAskForTheSame) {
  const auto scorer = scorers::Scorer::Create({});
  const auto other_scorer = scorers::Scorer::Create({});
  const CacheSpec spec = Narrow();
  PromptScores scores(0);
  EXPECT_EQ(scores.Find(scorer.get(), spec), nullptr);
  PromptScores::Scored scored;
  scored.groups.emplace_back().scores = {3.0F};
  scores.Add(scorer.get(), spec, std::move(scored));

  CacheSpec smaller = Narrow();
  smaller.budget = {{0.5}};
  const PromptScores::Scored* found = scores.Find(scorer.get(), smaller);
  ASSERT_NE(found, nullptr) << "any budget";
  EXPECT_EQ(found->groups[0].scores[0], 3.0F);
  EXPECT_EQ(scores.Find(other_scorer.get(), spec), nullptr);

  const std::vector<std::function<void(CacheSpec&)>> changes = {
      [](CacheSpec& s) { ++s.window; },
      [](CacheSpec& s) { ++s.sinks; },
      [](CacheSpec& s) { s.key_format = kRowsInt8; },
      [](CacheSpec& s) { s.value_format = kRowsInt8; },
      [](CacheSpec& s) { s.tiers[1].key_format = kRowsX2; },
      [](CacheSpec& s) { s.tiers[1].value_format = kRowsX2; },
      [](CacheSpec& s) { s.tiers[1].key_share = 0.5; },
      [](CacheSpec& s) { s.tiers.push_back(s.tiers[1]); },
      [](CacheSpec& s) { s.tiers.pop_back(); },
      [](CacheSpec& s) { s.basis = TierBasis::kPrompt; },
  };
  for (size_t i = 0; i < changes.size(); ++i) {
    CacheSpec changed = Narrow();
    changes[i](changed);
    EXPECT_EQ(scores.Find(scorer.get(), changed), nullptr) << "change " << i;
  }
}

}  // namespace
}  // namespace kvc::runtime
