// Layers with a sliding window: what they hold, that it is all that their queries see, and what
// budgets leave of it.

#include <algorithm>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/cache/cache_spec.h"
#include "runtime/cache/kv_invariants.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::Policy;
using testing::PrefillLast;

constexpr int64_t kContext = 128;  // of the golden models

const std::vector<const char*>& WindowModels() {
  static const std::vector<const char*> kModels = {"mistral-window", "qwen2-window", "qwen3-window",
                                                   "mistral-window-latent",
                                                   "qwen3-window-post-rope"};
  return kModels;
}

std::vector<LayoutCase> OnEveryBackend() {
  std::vector<LayoutCase> cases;
  for (const char* backend : {"cpu", "fenced", "emulator"}) {
    if (backend == std::string("emulator") && cuda::DeviceKind() != "emulator") continue;
    for (const char* model : WindowModels()) cases.emplace_back(model, backend);
  }
  return cases;
}

class WindowTest : public ::testing::TestWithParam<LayoutCase> {
 protected:
  Loaded loaded_{GetParam()};
};

// Decisions are the host's on every backend (cuda_backend_test.cc compares them).
class WindowBudgetTest : public WindowTest {
 protected:
  // Policies of every kind: a part of the window, tiers, spread by scores, all of it.
  [[nodiscard]] std::vector<CacheSpec> Policies() const {
    const CacheSpec full = loaded_.geometry();
    std::vector<CacheSpec> specs;
    for (const ScorerKind scorer :
         {ScorerKind::kSnapKv, ScorerKind::kOutputError, ScorerKind::kKnorm}) {
      specs.push_back(Narrow(Policy(full, Method::kUniform, scorer, 0.75)));
    }
    specs.push_back(Narrow(Policy(full, Method::kStreaming, ScorerKind::kStreaming, 9, false)));
    specs.push_back(Narrow(Policy(full, Method::kUniform, ScorerKind::kSnapKv, 0.8)));
    specs.back().tiers = {{1.0, 1.0}, {1.0, 0.5}, {1.0, 0.25}};
    specs.back().bases = testing::RandomBases(full, 3);
    specs.push_back(Narrow(Policy(full, Method::kUniform, ScorerKind::kSnapKv, 1.0)));
    if (full.layers[0].size() > 1) {
      specs.push_back(Narrow(Policy(full, Method::kAda, ScorerKind::kSnapKv, 0.75)));
    }
    return specs;
  }

  // Sinks, newest tokens and margin that leave room for tiers in a window of ten tokens.
  static CacheSpec Narrow(CacheSpec spec) {
    spec.sinks = 1;
    spec.window = 3;
    spec.margin = 2;
    return spec;
  }
};

// The ring goes round several times; nothing is allocated for it.
TEST_P(WindowTest, AFullCacheHoldsTheWindow) {
  const CacheSpec spec = loaded_.geometry();
  const auto decoded = loaded_.New(spec);
  PrefillLast(*loaded_.session, *decoded, RandomIds(5, 1));
  std::vector<int32_t> ids = RandomIds(5, 1);
  for (const int32_t id : RandomIds(75, 2)) {
    ids.push_back(id);
    const std::vector<float> logits = DecodeOne(*loaded_.session, *decoded, id);
    ASSERT_NO_THROW(CheckInvariants(CacheOf(*decoded))) << ids.size();
    for (int64_t l = 0; l < spec.num_layers(); ++l) {
      const int64_t seen = spec.SeenTokens(l, std::ssize(ids));
      EXPECT_EQ(CacheOf(*decoded).layer(l).groups[0].rows(), seen);
    }
    if (ids.size() % 15 != 0) continue;
    const auto whole = loaded_.New(spec);
    const std::vector<float> expected = PrefillLast(*loaded_.session, *whole, ids);
    EXPECT_LE(MaxDifference(logits, expected), 1e-3) << ids.size();
    EXPECT_EQ(whole->counters().logical_bytes, decoded->counters().logical_bytes);
  }
}

TEST_P(WindowBudgetTest, BytesAreThePredicted) {
  std::vector<CacheSpec> specs = Policies();
  specs.push_back(loaded_.geometry());
  for (const CacheSpec& spec : specs) {
    for (const int64_t length : {1, 3, 9, 10, 11, 15, 16, 17, 48}) {
      const auto sequence = loaded_.New(spec);
      PrefillLast(*loaded_.session, *sequence, RandomIds(length, 1));
      const CacheBytes expected = PredictBytes(spec, length);
      const std::string where = std::string(MethodName(spec.method)) + " " + ToString(spec.scorer) +
                                " length " + std::to_string(length);
      EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence))) << where;
      EXPECT_EQ(sequence->counters().full_bytes, expected.full) << where;
      if (spec.has_narrow_tiers()) {
        EXPECT_LE(sequence->counters().allocated_bytes, expected.allocated) << where;
        continue;
      }
      // Where heads are of different widths, a row that Ada moves takes other bytes.
      if (spec.method == Method::kAda) continue;
      EXPECT_EQ(sequence->counters().allocated_bytes, expected.allocated) << where;
      EXPECT_EQ(sequence->counters().logical_bytes, expected.logical) << where;
    }
  }
}

// No policy ever holds a token that left the window, or more rows than it has; a budget of
// everything is the full cache.
TEST_P(WindowBudgetTest, BudgetsStayInsideTheWindow) {
  for (const DecodePolicy policy : {DecodePolicy::kReallocate, DecodePolicy::kAppend}) {
    for (const CacheSpec& spec : Policies()) {
      const bool everything = spec.by_share && spec.budget[0][0] >= 1.0;
      for (const int64_t length : {4, 14, 30}) {
        const auto sequence = loaded_.New(spec, policy);
        const auto full = loaded_.New(loaded_.geometry());
        PrefillLast(*loaded_.session, *sequence, RandomIds(length, 7));
        PrefillLast(*loaded_.session, *full, RandomIds(length, 7));
        for (const int32_t id : RandomIds(std::min<int64_t>(40, kContext - length), 8)) {
          const std::vector<float> logits = DecodeOne(*loaded_.session, *sequence, id);
          ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)))
              << MethodName(spec.method) << " " << ToString(spec.scorer) << " behind " << length
              << " at " << sequence->length();
          if (!everything) continue;
          EXPECT_LE(MaxDifference(logits, DecodeOne(*loaded_.session, *full, id)), 1e-3);
        }
      }
    }
  }
}

TEST_P(WindowTest, AClonesRingIsItsOwn) {
  const auto sequence = loaded_.New(loaded_.geometry());
  PrefillLast(*loaded_.session, *sequence, RandomIds(21, 3));
  DecodeOne(*loaded_.session, *sequence, 5);
  const auto clone = sequence->Clone();
  const std::vector<float> expected = DecodeOne(*loaded_.session, *sequence, 7);
  for (int32_t id = 0; id < 20; ++id) DecodeOne(*loaded_.session, *sequence, id);
  EXPECT_EQ(DecodeOne(*loaded_.session, *clone, 7), expected);
}

INSTANTIATE_TEST_SUITE_P(Models, WindowTest, ::testing::ValuesIn(OnEveryBackend()), LayoutName);
INSTANTIATE_TEST_SUITE_P(Models,
                         WindowBudgetTest,
                         ::testing::ValuesIn(std::vector<LayoutCase>(WindowModels().begin(),
                                                                     WindowModels().end())),
                         LayoutName);

}  // namespace
}  // namespace kvc::runtime
