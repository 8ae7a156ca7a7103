// Every layout on every family that can have it: exact at full rank, thin below, readable again.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/checkpoint/checkpoint.h"
#include "factorize/closed_forms.h"
#include "factorize/held_back.h"
#include "factorize/layout_choice.h"
#include "factorize/thin_writer.h"
#include "model/reference_run.h"
#include "model/streamed.h"
#include "tests/support/expect_error.h"
#include "tests/support/golden_names.h"
#include "tests/support/paths.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize {
namespace {

const std::filesystem::path kModels = kvc::testing::SourceRoot() / "tests/golden/models";

Windows RandomWindows(const ModelConfig& config, int64_t count, int64_t length) {
  Rng rng(11);
  Windows windows(count);
  for (auto& window : windows) {
    for (int64_t t = 0; t < length; ++t) {
      window.push_back(static_cast<int32_t>(rng.NextBelow(config.vocab_size)));
    }
  }
  return windows;
}

class FamilyTest : public ::testing::TestWithParam<const char*> {
 protected:
  FamilyTest() : source_(Checkpoint::Open(kModels / GetParam())) {}

  [[nodiscard]] FactorRequest Request(const std::string& layout,
                                      Objective objective,
                                      const std::string& rank) const {
    const LayoutChoice choice = ResolveLayout(ParseLayout(layout), source_.config());
    FactorRequest request;
    request.layout = choice.layout;
    request.num_groups = choice.num_groups;
    const ModelConfig& config = source_.config();
    request.objective =
        ResolveObjective(objective, choice.layout, GroupWidth(config, choice.num_groups));
    request.rank = ParseRank(rank, "--rank");
    return request;
  }
  [[nodiscard]] std::vector<LayerFactors> Factor(const FactorRequest& request) const {
    NoProgress progress;
    const Windows windows =
        NeedsCalibration(request.objective) ? RandomWindows(source_.config(), 8, 40) : Windows{};
    return FactorLayers(source_, request, windows, *svd_, progress);
  }
  // Writes the factors and opens them again.
  [[nodiscard]] Checkpoint Write(const FactorRequest& request,
                                 const std::vector<LayerFactors>& factors) const {
    NoProgress progress;
    WriteThinCheckpoint(source_, MakeKeys(request, factors), factors, temp_.path(), progress);
    return Checkpoint::Open(temp_.path());
  }
  [[nodiscard]] double MaxLogitDifference(const Checkpoint& thin) const {
    const auto ids = RandomWindows(source_.config(), 1, 48)[0];
    const auto difference = model::SequenceLogits(source_, ids) - model::SequenceLogits(thin, ids);
    return difference.abs().max().item<double>();
  }
  // Layout and objective of everything that the family can have.
  [[nodiscard]] std::vector<std::pair<std::string, Objective>> Everything() const {
    std::vector<std::string> layouts = {"post-rope", "rope-pairs", "absorb"};
    for (int64_t n = 1; n <= source_.config().num_kv_heads; ++n) {
      if (source_.config().num_kv_heads % n == 0) layouts.push_back("latent:" + std::to_string(n));
    }
    std::vector<std::pair<std::string, Objective>> everything;
    for (const std::string& name : layouts) {
      const KeyLayout layout =
          name.starts_with("latent") ? KeyLayout::kLatent : KeyLayoutFromName(name);
      if (!LayoutObstacle(source_.config(), layout).empty()) continue;
      for (const Objective objective :
           {Objective::kWeight, Objective::kInput, Objective::kInputAttentionQuery,
            Objective::kLogit, Objective::kAttention, Objective::kOutput}) {
        if (CanHaveObjective(layout, objective)) everything.emplace_back(name, objective);
      }
    }
    return everything;
  }

  kvc::testing::TempDir temp_;
  Checkpoint source_;
  std::unique_ptr<linalg::Svd> svd_ = linalg::Svd::Create(linalg::SvdBackend::kLapack);
};

TEST_P(FamilyTest, FullRankReproducesTheSource) {
  for (const auto& [layout, objective] : Everything()) {
    const FactorRequest request = Request(layout, objective, "100%");
    EXPECT_LE(MaxLogitDifference(Write(request, Factor(request))), 1e-3)
        << layout << ", " << ObjectiveName(objective);
  }
}

TEST_P(FamilyTest, HalfRankIsThinAndWhatWasMeasured) {
  for (const auto& [layout, objective] : Everything()) {
    const FactorRequest request = Request(layout, objective, "50%");
    const auto factors = Factor(request);
    const Checkpoint thin = Write(request, factors);
    EXPECT_GT(MaxLogitDifference(thin), 1e-2) << layout;
    for (int64_t l = 0; l < thin.config().num_layers; ++l) {
      int64_t width = 0;
      for (const int64_t rank : thin.config().keys.ranks[l]) width += rank;
      EXPECT_LE(2 * width, source_.config().num_kv_heads * source_.config().head_width) << layout;
      EXPECT_EQ(factors[l].logit_errors.size(), static_cast<size_t>(source_.config().num_kv_heads));
      for (const double error : factors[l].logit_errors) {
        EXPECT_GT(error, 0.0) << layout;
        EXPECT_LT(error, 1.0) << layout << ", " << ObjectiveName(objective);
      }
    }
    // In memory and written: the same model.
    NoProgress progress;
    const Windows windows = RandomWindows(source_.config(), 2, 30);
    const model::ReferenceRun reference = model::RunReference(source_, windows, progress);
    const auto kept =
        MeasureFactors(reference, source_, MakeKeys(request, factors), factors, progress);
    const auto written = model::CompareWith(reference, thin, progress);
    EXPECT_NEAR(kept.kld, written.kld, 1e-6 * (1.0 + written.kld)) << layout;
  }
}

TEST(LayoutRequest, TextIsItsParser) {
  for (const char* text :
       {"auto", "absorb", "latent:2", "latent:heads", "post-rope", "rope-pairs"}) {
    EXPECT_EQ(ToText(ParseLayout(text)), text);
  }
  EXPECT_KVC_ERROR((void)ParseLayout("thin"), kUsage, "rope-pairs");
  EXPECT_KVC_ERROR((void)ParseLayout("latent:0"), kUsage, "latent:N");
}

TEST_P(FamilyTest, RefusesWhatItCannotHave) {
  for (const std::string layout : {"absorb", "latent:1", "post-rope", "rope-pairs"}) {
    const KeyLayout kind = layout == "latent:1" ? KeyLayout::kLatent : KeyLayoutFromName(layout);
    if (LayoutObstacle(source_.config(), kind).empty()) continue;
    EXPECT_KVC_ERROR((void)ResolveLayout(ParseLayout(layout), source_.config()), kUsage,
                     "expected " + PossibleLayouts(source_.config()));
  }
}

INSTANTIATE_TEST_SUITE_P(Golden,
                         FamilyTest,
                         ::testing::Values("gpt2",
                                           "llama",
                                           "llama-bias",
                                           "mistral",
                                           "qwen2",
                                           "qwen3",
                                           "smollm3",
                                           "stablelm",
                                           "olmo2",
                                           "llama-yarn",
                                           "mistral-longrope"),
                         kvc::testing::ParameterName());

TEST(Objectives, NamesThoseOfTheLayout) {
  const auto resolve = [](Objective objective, KeyLayout layout, int64_t width = 1024) {
    return ResolveObjective(objective, layout, width);
  };
  EXPECT_EQ(resolve(Objective::kAuto, KeyLayout::kLatent), Objective::kOutput);
  EXPECT_EQ(resolve(Objective::kAuto, KeyLayout::kLatent, 4096), Objective::kInputAttentionQuery);
  EXPECT_EQ(resolve(Objective::kOutput, KeyLayout::kLatent, 4096), Objective::kOutput);
  EXPECT_EQ(resolve(Objective::kAuto, KeyLayout::kPostRope), Objective::kAttention);
  EXPECT_EQ(resolve(Objective::kAuto, KeyLayout::kRopePairs), Objective::kLogit);
  EXPECT_KVC_ERROR(
      (void)resolve(Objective::kWeight, KeyLayout::kPostRope), kUsage,
      "expected one of auto, logit, attention, output with --layout post-rope, got weight");
  EXPECT_KVC_ERROR((void)resolve(Objective::kLogit, KeyLayout::kLatent), kUsage,
                   "input-attention-query");
}

TEST(Ranks, PairsAreEven) {
  EXPECT_EQ(RankFor(ParseRank("25%", "r"), 64, KeyLayout::kRopePairs), 16);
  EXPECT_EQ(RankFor(ParseRank("30%", "r"), 16, KeyLayout::kRopePairs), 4);
  EXPECT_EQ(RankFor(ParseRank("1%", "r"), 16, KeyLayout::kRopePairs), 2);
  EXPECT_EQ(RankFor(ParseRank("30%", "r"), 16), 5);
  EXPECT_KVC_ERROR((void)RankFor(ParseRank("5", "r"), 16, KeyLayout::kRopePairs), kUsage,
                   "even number");
}

}  // namespace
}  // namespace kvc::factorize
