// --tune local and --spread through the whole stage, on the bundled model.

#include "factorize/tune_local.h"

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "factorize/held_back.h"
#include "model/reference_run.h"
#include "model/threads.h"
#include "tests/factorize/tuning_stage.h"
#include "tests/support/expect_error.h"

namespace kvc::factorize {
namespace {

using testing::FamilyCase;
using testing::kRoot;
using testing::StopsAt;

class TuneLocal : public testing::TuningStage {
 protected:
  void SetUp() override {
    TuningStage::SetUp();
    options_.tune = true;
  }
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
  EXPECT_NEAR(untuned["kld_before_tuning"].get<double>(), result["kld_before_tuning"].get<double>(),
              1e-4 * untuned["kld_before_tuning"].get<double>());
}

TEST_F(TuneLocal, TheCheckpointHasTheRank) {
  (void)Run();
  ExpectQuarterRank();
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
  options_.layout = ParseLayout("post-rope");
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
  options_.layout = ParseLayout("latent:heads");
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
class TuneFamilies : public ::testing::TestWithParam<FamilyCase> {};

TEST_P(TuneFamilies, ComeCloserToTheSource) {
  const kvc::testing::TempDir temp;
  const Checkpoint source = Checkpoint::Open(kRoot / "tests/golden/models" / GetParam().model);
  const Windows windows = testing::RandomWindows(source.config().vocab_size);
  auto [keys, factors] = testing::HalfWidth(source, GetParam().layout, windows);
  NoProgress progress;
  const auto reference = model::RunReference(source, windows, progress);
  const double before = MeasureFactors(reference, source, keys, factors, progress).kld;
  TuneOptions options;
  options.step_tokens = 192;
  const TuneState state(temp.path(), Json::object());
  const auto tuned = TuneLocally(source, keys, windows, options, state, progress, factors);
  EXPECT_EQ(std::ssize(tuned), source.config().num_layers);
  EXPECT_LT(MeasureFactors(reference, source, keys, factors, progress).kld, before);
}

INSTANTIATE_TEST_SUITE_P(Models, TuneFamilies, testing::kFamilyCases, testing::FamilyCaseName);

}  // namespace
}  // namespace kvc::factorize
