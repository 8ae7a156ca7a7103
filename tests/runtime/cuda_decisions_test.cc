// Decisions that a device makes without the host: by the same rule, from the same sums, it keeps
// the rows that the host's policy keeps, and no layer waits for them.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/dtype.h"
#include "core/base/rng.h"
#include "core/cache/scorer_spec.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/device_memory.h"
#include "runtime/cuda/placed_scores.h"
#include "runtime/cuda/unsettled_layer.h"
#include "runtime/policy/decide.h"
#include "tests/runtime/both_backends.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::Policy;
using testing::PrefillLast;

template <class T>
std::vector<T> Download(const Buffer& from, int64_t count, CudaDevice& device) {
  std::vector<T> values(static_cast<size_t>(count));
  device.ToHost(from, 0, values.data(), count * static_cast<int64_t>(sizeof(T)));
  return values;
}

// Expects that a layer to which a rule was applied holds what the host's policy decides.
void ExpectTheHostsRows(const LayerRule& rule,
                        const std::vector<GroupScores>& scores,
                        LayerCache& layer,
                        CudaDevice& device) {
  std::vector<int32_t> rows;
  std::vector<float> best;
  for (size_t n = 0; n < rule.groups.size(); ++n) {
    const RowMoves moves = KeepBest(rule.groups[n], scores[n].scores);
    for (const RowSource& source : moves.tiers[0].rows) {
      rows.push_back(static_cast<int32_t>(source.row));
    }
    best.insert(best.end(), moves.tiers[0].scores.begin(), moves.tiers[0].scores.end());
    EXPECT_EQ(layer.groups[n].tiers[0].rows(), std::ssize(moves.tiers[0].rows));
    EXPECT_EQ(layer.groups[n].tiers[0].capacity(), moves.tiers[0].capacity);
    EXPECT_EQ(layer.groups[n].recent.capacity(), moves.recent_capacity);
  }
  const UnsettledLayer& news = UnsettledOf(layer);
  EXPECT_EQ(Download<int32_t>(news.chosen, std::ssize(rows), device), rows);
  EXPECT_EQ(Download<float>(news.best, std::ssize(best), device), best);
}

// The device's backend, whose decisions on prompts are compared with the host's from its own sums.
class ComparedDecisions : public CudaBackend {
 public:
  using CudaBackend::CudaBackend;

  std::shared_ptr<const PlacedScores> ScoreInPlace(const ScoreRequest& request,
                                                   const PreparedModel& model,
                                                   SequenceCache& cache) override {
    auto placed = CudaBackend::ScoreInPlace(request, model, cache);
    if (placed != nullptr) scores_ = Score(request, model, cache);
    return placed;
  }
  void ApplyRule(const LayerRule& rule,
                 const PlacedScores& scores,
                 int64_t layer,
                 SequenceCache& cache) override {
    CudaBackend::ApplyRule(rule, scores, layer, cache);
    ExpectTheHostsRows(rule, scores_, cache.layer(layer), dynamic_cast<CudaDevice&>(device()));
    ++compared;
  }

  int64_t compared = 0;

 private:
  std::vector<GroupScores> scores_;
};

class DecisionsOnDevice : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         DecisionsOnDevice,
                         ::testing::ValuesIn(Layouts()),
                         kvc::testing::ParameterName());

std::vector<std::string> Scorers(bool can_turn) {
  std::vector<std::string> scorers = {"snapkv",
                                      "output-error:pool=5,keydiff=0.3",
                                      "output-error:reduce=mean,pool=1",
                                      "keydiff",
                                      "knorm",
                                      "streaming"};
  if (can_turn) {
    scorers.emplace_back("expected-attention");
    scorers.emplace_back("output-error:prompt=9,recent=0.3,keydiff=0.2");
    scorers.emplace_back("output-error:reduce=mean,prompt=100,recent=0,relative=no");
  }
  return scorers;
}

TEST_P(DecisionsOnDevice, AreTheHosts) {
  const Loaded loaded({GetParam(), "cpu"});
  ThreadPool pool(2);
  const auto backend = std::make_shared<ComparedDecisions>(pool);
  Session session(loaded.bundle, backend);
  for (const std::string& scorer : Scorers(QueriesCanTurn(GetParam()))) {
    SCOPED_TRACE(scorer);
    CacheSpec spec =
        Policy(loaded.geometry(), Method::kUniform, ScorerKind::kOutputError, 14, false);
    spec.scorer = ParseScorer(scorer, "");
    for (const int64_t length : {30, 17, 3}) {
      SequenceOptions options;
      options.cache = spec;
      const auto sequence = session.NewSequence(options);
      PrefillLast(session, *sequence, RandomIds(length, 5));
      // Positions and scores are there for what comes.
      EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
      (void)sequence->Clone();
      for (const int32_t id : loaded.More(8, length, 6)) (void)DecodeOne(session, *sequence, id);
      EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    }
  }
  EXPECT_GT(backend->compared, 0);
}

// Scores that are given, with ties of all kinds, on a cache whose rows do not matter.
TEST(RuleOnDevice, KeepsTheHostsRows) {
  Rng rng(81);
  CudaDevice device(2);
  for (int repeat = 0; repeat < 12; ++repeat) {
    CacheSpec spec;
    spec.num_heads = 4;
    spec.num_kv_heads = 2;
    spec.head_width = 8;
    spec.layers = {{{8, 8, {0}, true}, {4, 8, {1}, true}}};
    spec.method = Method::kUniform;
    spec.sinks = rng.NextBelow(5);
    spec.window = rng.NextBelow(9);
    spec.margin = 1 + rng.NextBelow(4);
    spec.tiers = {{1.0, 1.0}};
    spec.budget = {{9.0, 9.0}};
    const auto length = static_cast<int64_t>(1 + rng.NextBelow(300));
    SequenceCache cache(spec, 0, device);
    cache.BeginLayer(0, length, 0);
    LayerCache& layer = cache.layer(0);
    for (GroupCache& group : layer.groups) group.recent.Appended(length, 0);
    std::vector<GroupScores> scores(2);
    std::vector<float> all;
    const auto values = 1 + rng.NextBelow(repeat % 3 == 0 ? 2 : 1000);
    for (GroupScores& group : scores) {
      for (int64_t j = 0; j < length; ++j) {
        group.scores.push_back(static_cast<float>(rng.NextBelow(values)) - 1.0F);
      }
      all.insert(all.end(), group.scores.begin(), group.scores.end());
    }
    auto placed = std::make_unique<ScoresOnDevice>();
    placed->first = {0, length};
    placed->faults = std::make_shared<Buffer>(int64_t{4}, device, nullptr);
    const int32_t none = 0;
    device.ToDevice(&none, *placed->faults, 0, 4);
    const std::vector<int64_t> rows = {static_cast<int64_t>(rng.NextBelow(length + 3)),
                                       static_cast<int64_t>(rng.NextBelow(length + 3))};
    const LayerRule rule = PromptRule(spec, 0, length, rows);
    // As the last part of scoring leaves them.
    for (int64_t n = 0; n < 2; ++n) {
      std::fill_n(all.begin() + n * length, rule.groups[n].pinned, kPinned);
    }
    placed->scores = Buffer(2 * length * 4, device, nullptr);
    device.ToDevice(all.data(), placed->scores, 0, 2 * length * 4);
    ApplyRuleOnDevice(rule, *placed, 0, cache, device);
    ExpectTheHostsRows(rule, scores, layer, device);
    SettleOnDevice(cache, device);
    for (size_t n = 0; n < 2; ++n) {
      const RowMoves moves = KeepBest(rule.groups[n], scores[n].scores);
      const CacheBlock& tier = layer.groups[n].tiers[0];
      for (int64_t i = 0; i < tier.rows(); ++i) {
        EXPECT_EQ(tier.positions()[i], moves.tiers[0].rows[i].row);
        EXPECT_EQ(tier.Scores()[i], BF16ToFloat(FloatToBF16(moves.tiers[0].scores[i])));
      }
      EXPECT_EQ(layer.groups[n].recent.rows(), length - rule.groups[n].candidates);
    }
  }
}

// A full cache waits for room and for the logits; with a budget one more wait tells the host what
// was kept, however many layers there are.
TEST(PromptOnDevice, NoLayerWaits) {
  for (const std::string model : {"llama", "qwen3-latent"}) {
    Both both(model);
    auto& device = dynamic_cast<CudaDevice&>(both.backend->device());
    const auto waits_of = [&](const CacheSpec& spec) {
      const auto sequence = both.OnDevice(spec);
      const int64_t before = device.waits();
      PrefillLast(both.session, *sequence, RandomIds(30, 5));
      return device.waits() - before;
    };
    const int64_t full = waits_of(both.processor.geometry());
    ASSERT_GT(both.processor.geometry().num_layers(), 1);
    for (const std::string scorer :
         {"output-error:keydiff=0.3", "output-error:prompt=9", "snapkv"}) {
      // Scores of heads that share a latent are normalised on the host.
      if (scorer == "snapkv" && model == "qwen3-latent") continue;
      CacheSpec spec = BudgetWithoutTies(both.processor.geometry());
      spec.scorer = ParseScorer(scorer, "");
      EXPECT_EQ(waits_of(spec), full + 1) << model << ", " << scorer;
    }
    // Where scores decide how many rows a group has, the host must see them.
    CacheSpec spread = BudgetWithoutTies(both.processor.geometry());
    spread.method = Method::kAda;
    EXPECT_GE(waits_of(spread), full + spread.num_layers());
  }
}

}  // namespace
}  // namespace kvc::runtime
