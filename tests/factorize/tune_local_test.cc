// --tune local and --spread through the whole stage, on the bundled model.

#include "factorize/tune_local.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/checkpoint.h"
#include "core/error.h"
#include "core/files.h"
#include "core/rng.h"
#include "factorize/closed_forms.h"
#include "factorize/factorize_model.h"
#include "factorize/matrix.h"
#include "factorize/svd.h"
#include "factorize/thin_layer.h"
#include "model/threads.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::factorize {
namespace {

const std::filesystem::path kRoot = KVC_SOURCE_DIR;

// Stops the stage when it reports the given place of the given stage.
class StopsAt : public Progress {
 public:
  StopsAt(std::string stage, int64_t done) : stage_(std::move(stage)), done_(done) {}
  void Report(const std::string& stage, int64_t done, int64_t) override {
    KVC_CHECK(stage != stage_ || done < done_, kInterrupted, "stopped by the test");
  }
  void Log(const std::string&) override {}

 private:
  std::string stage_;
  int64_t done_;
};

class TuneLocal : public ::testing::Test {
 protected:
  void SetUp() override {
    options_.model = kRoot / "examples/models/needle-llama";
    options_.output = temp_.path() / "thin";
    options_.force = true;
    options_.layout = "latent:1";
    options_.calibration = {kRoot / "examples/text/alice-calibration.txt"};
    options_.calibration_tokens = 2048;
    options_.window = 128;
    options_.held_back = 4;
    options_.rank = ParseRank("25%", "--rank");
    options_.objective = Objective::kWeight;  // leaves something to tune on this small model
    options_.tune = true;
    options_.tune_tokens = 4096;
    options_.tuning.passes = 2;
  }
  Json Run() {
    NoProgress progress;
    return FactorizeModel(options_, progress);
  }
  [[nodiscard]] std::string Hash() const {
    return Sha256File(options_.output / "model.safetensors");
  }
  [[nodiscard]] std::filesystem::path Partial() const { return temp_.path() / "thin.partial"; }

  testing::TempDir temp_;
  FactorizeOptions options_;
};

TEST_F(TuneLocal, ComesCloserToTheSource) {
  const Json result = Run();
  EXPECT_LT(result["kld_after_tuning"].get<double>(),
            0.8 * result["kld_before_tuning"].get<double>());
  ASSERT_EQ(result["tuning"].size(), 4u);
  for (const Json& layer : result["tuning"]) {
    EXPECT_LE(layer["error_after"].get<double>(), layer["error_before"].get<double>());
  }
  options_.tune = false;  // what was measured before is what the untuned checkpoint has
  const Json untuned = Run();
  EXPECT_NEAR(untuned["kld_before_tuning"].get<double>(),
              result["kld_before_tuning"].get<double>(),
              1e-4 * untuned["kld_before_tuning"].get<double>());
}

// The dense key map that the checkpoint amounts to has exactly the promised rank.
TEST_F(TuneLocal, TheCheckpointHasTheRank) {
  (void)Run();
  const Checkpoint thin = Checkpoint::Open(options_.output);
  const ModelConfig& config = thin.config();
  const int64_t width = config.num_kv_heads * config.head_width;
  const auto svd = Svd::Create(SvdBackend::kEigen);
  for (int64_t l = 0; l < config.num_layers; ++l) {
    const int64_t rank = width / 4;
    ASSERT_EQ(config.key_width(l, 0), rank);
    ASSERT_EQ(thin.Shape(Role::kK, l), (std::vector<int64_t>{rank, config.model_width}));
    const std::vector<float> reduce = thin.Load(Role::kK, l);
    const std::vector<float> rebuild = thin.Load(Role::kKRebuild, l);
    Matrix a(rank, config.model_width), b(width, rank);
    std::copy(reduce.begin(), reduce.end(), a.data.begin());
    std::copy(rebuild.begin(), rebuild.end(), b.data.begin());
    const SvdResult dense = svd->Decompose(Multiply(b.view(), a.view()).view());
    EXPECT_GT(dense.s[rank - 1], 1e-6 * dense.s[0]);
    EXPECT_LT(dense.s[rank], 1e-12 * dense.s[0]);
  }
}

TEST_F(TuneLocal, SameBytesWhateverTheThreads) {
  model::SetThreads(1);
  (void)Run();
  const std::string one = Hash();
  model::SetThreads(3);
  (void)Run();
  EXPECT_EQ(Hash(), one);
  model::SetThreads(0);
}

TEST_F(TuneLocal, GoesOnBehindTheLastFinishedLayer) {
  (void)Run();
  const std::string whole = Hash();
  options_.force = true;
  StopsAt stop("tune", 210);  // in the third layer
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  EXPECT_TRUE(std::filesystem::exists(Partial() / "tuned-layer-1.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(Partial() / "tuned-layer-2.safetensors"));
  StopsAt early("tune", 1);  // nothing of the first two layers is tuned again
  try {
    (void)FactorizeModel(options_, early);
    ADD_FAILURE() << "was not stopped";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  EXPECT_FALSE(std::filesystem::exists(Partial() / "tuned-layer-2.safetensors"));
  (void)Run();
  EXPECT_EQ(Hash(), whole);
  EXPECT_FALSE(std::filesystem::exists(options_.output / "tuning.json"));
  EXPECT_FALSE(std::filesystem::exists(Partial()));
}

// Layers that were finished before come back with everything that was trained in them.
TEST_F(TuneLocal, GoesOnWithKeysBehindTheRotation) {
  options_.layout = "post-rope";
  options_.objective = Objective::kLogit;
  (void)Run();
  const std::string whole = Hash();
  StopsAt stop("tune", 210);  // in the third layer
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  (void)Run();
  EXPECT_EQ(Hash(), whole);
}

TEST_F(TuneLocal, ANaNStopsAndKeepsFinishedLayers) {
  StopsAt stop("tune", 110);  // the first layer is done
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  options_.tuning.learning_rate = 1e30;
  EXPECT_KVC_ERROR((void)Run(), kNumeric, "layer 1");
  EXPECT_TRUE(std::filesystem::exists(Partial() / "tuned-layer-0.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
  options_.tuning.learning_rate = 0.005;  // the rest with a lower one
  const Json result = Run();
  EXPECT_EQ(result["tuning"][0]["lr"].get<double>(), TuneOptions().learning_rate);
  EXPECT_EQ(result["tuning"][1]["lr"].get<double>(), 0.005);
}

TEST_F(TuneLocal, RefusesByName) {
  options_.tune_tokens = 1 << 20;
  EXPECT_KVC_ERROR((void)Run(), kBadInput, "--tune-tokens");
  options_.tune_tokens = 100;
  EXPECT_KVC_ERROR((void)Run(), kUsage, "--tune-tokens");
  options_.tune_tokens = 4096;
  StopsAt stop("tune", 110);
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  options_.tuning.passes = 3;  // other settings than those of the unfinished run
  EXPECT_KVC_ERROR((void)Run(), kUsage, "tune_passes");
  options_.calibration.clear();
  options_.objective = Objective::kWeight;
  EXPECT_KVC_ERROR((void)Run(), kUsage, "--calib");
  options_.tune = false;
  options_.spread = true;
  EXPECT_KVC_ERROR((void)Run(), kUsage, "--spread");
}

TEST_F(TuneLocal, SpreadRanksKeepTheMeanAndCanBeTuned) {
  options_.spread = true;
  options_.layout = "latent:heads";
  options_.rank = ParseRank("50%", "--rank");
  const Json result = Run();
  EXPECT_LE(result["key_bytes_share"].get<double>(), 0.5);
  EXPECT_GT(result["key_bytes_share"].get<double>(), 0.45);
  ASSERT_EQ(result["sensitivity"].size(), 4u);
  for (const Json& kld : result["sensitivity"]) EXPECT_GT(kld.get<double>(), 0.0);
  const Checkpoint thin = Checkpoint::Open(options_.output);
  for (int64_t l = 0; l < 4; ++l) {
    for (int64_t n = 0; n < 2; ++n) {
      EXPECT_EQ(thin.config().key_width(l, n),
                result["layers"][l]["group_ranks"][n].get<int64_t>());
    }
  }
  EXPECT_LT(result["kld_after_tuning"].get<double>(), result["kld_before_tuning"].get<double>());
}

// Every family and layout on random tokens, without a tokenizer.
struct FamilyCase {
  const char* model;
  KeyLayout layout;
};
class TuneFamilies : public ::testing::TestWithParam<FamilyCase> {};

TEST_P(TuneFamilies, ComeCloserToTheSource) {
  const testing::TempDir temp;
  const Checkpoint source = Checkpoint::Open(kRoot / "tests/golden/models" / GetParam().model);
  const ModelConfig& config = source.config();
  Rng rng(7);
  Windows windows(24, std::vector<int32_t>(48));
  for (auto& window : windows) {
    for (int32_t& id : window) id = static_cast<int32_t>(rng.NextBelow(config.vocab_size));
  }
  FactorRequest request;
  request.layout = GetParam().layout;
  request.num_groups = request.layout == KeyLayout::kLatent ? 1 : config.num_kv_heads;
  const bool by_logits = request.layout == KeyLayout::kPostRope;
  request.objective = by_logits ? Objective::kLogit : Objective::kWeight;
  request.rank = ParseRank("50%", "--rank");
  NoProgress progress;
  const auto svd = Svd::Create(SvdBackend::kEigen);
  auto factors =
      FactorLayers(source, request, by_logits ? windows : Windows(), *svd, progress, nullptr);
  const KeyFactors keys = MakeKeys(request, factors);
  const auto reference = model::RunReference(source, windows, progress);
  const double before = MeasureFactors(reference, source, keys, factors, progress).kld;
  TuneOptions options;
  options.step_tokens = 192;
  const TuneState state(temp.path(), Json::object());
  const Json report = TuneLocally(source, keys, windows, options, state, progress, factors);
  EXPECT_EQ(std::ssize(report), config.num_layers);
  EXPECT_LT(MeasureFactors(reference, source, keys, factors, progress).kld, before);
}

INSTANTIATE_TEST_SUITE_P(Models,
                         TuneFamilies,
                         ::testing::Values(FamilyCase{"gpt2", KeyLayout::kAbsorb},
                                           FamilyCase{"llama-bias", KeyLayout::kLatent},
                                           FamilyCase{"mistral", KeyLayout::kPostRope},
                                           FamilyCase{"llama", KeyLayout::kRopePairs},
                                           FamilyCase{"qwen2", KeyLayout::kLatent},
                                           FamilyCase{"qwen3", KeyLayout::kPostRope},
                                           FamilyCase{"qwen3", KeyLayout::kLatent}),
                         [](const auto& model_case) {
                           std::string name = std::string(model_case.param.model) + "_" +
                                              std::string(KeyLayoutName(model_case.param.layout));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace kvc::factorize
