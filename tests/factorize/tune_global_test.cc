// --tune global through the whole stage, on the bundled model.

#include "factorize/tune_global.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "model/threads.h"
#include "tests/factorize/tuning_stage.h"
#include "tests/support/expect_error.h"

namespace kvc::factorize {
namespace {

using testing::StopsAt;

constexpr const char* kStage = "global tuning";

class TuneGlobal : public testing::TuningStage {
 protected:
  void SetUp() override {
    TuningStage::SetUp();
    options_.tune_global = true;
    options_.global.step_tokens = 256;  // 29 windows of training: 15 steps in a pass
    options_.global.learning_rate = 0.04;
  }
};

TEST_F(TuneGlobal, ComesCloserToTheSourceAtTheSameRank) {
  const Json result = Run();
  EXPECT_LT(result["kld_after_tuning"].get<double>(),
            0.7 * result["kld_before_tuning"].get<double>());
  EXPECT_FALSE(result.contains("tuning"));
  const Json& report = result["global_tuning"];
  EXPECT_EQ(report["steps"], 15);
  EXPECT_GT(report["kept_step"].get<int64_t>(), 0);
  EXPECT_LT(report["loss_after"].get<double>(), report["loss_before"].get<double>());
  ASSERT_EQ(report["curve"].size(), 6u);  // the start, every third step of 15
  EXPECT_EQ(report["curve"][5]["step"], 15);
  ExpectQuarterRank();
  EXPECT_FALSE(std::filesystem::exists(options_.output / "tuned-thin.safetensors"));
}

// Whatever is not on the query and key side has the source's bytes.
TEST_F(TuneGlobal, TouchesNothingElse) {
  (void)Run();
  const Checkpoint source = Checkpoint::Open(options_.model);
  const Checkpoint thin = Checkpoint::Open(options_.output);
  int64_t compared = 0;
  for (const std::string& name : source.tensors().names()) {
    const bool tuned =
        name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos;
    const auto before = source.tensors().Get(name);
    const auto after = thin.tensors().Get(name);
    const bool same = before.dtype == after.dtype && std::ranges::equal(before.bytes, after.bytes);
    EXPECT_EQ(same, !tuned) << name;
    compared += tuned ? 0 : 1;
  }
  EXPECT_GE(compared, 4 * 7 + 2);  // values, output, MLP and norms of four layers, embedding, norm
}

TEST_F(TuneGlobal, SameBytesWhateverTheThreadsAndOtherOnesOfAnotherSeed) {
  model::SetThreads(1);
  (void)Run();
  const std::string one = Hash();
  model::SetThreads(3);
  (void)Run();
  EXPECT_EQ(Hash(), one);
  options_.global.seed = 7;
  (void)Run();
  EXPECT_NE(Hash(), one);
  model::SetThreads(0);
}

TEST_F(TuneGlobal, AStoppedRunGoesOnToTheSameBytes) {
  const Json whole = Run();
  const std::string hash = Hash();
  for (const int64_t step :
       {7, 11}) {  // between two checks, each of them another distance from one
    StopsAt stop(kStage, step);
    EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
    EXPECT_TRUE(std::filesystem::exists(Partial() / "tuned-thin.safetensors"));
  }
  EXPECT_EQ(Run(), whole);
  EXPECT_EQ(Hash(), hash);
  EXPECT_FALSE(std::filesystem::exists(Partial()));
}

TEST_F(TuneGlobal, ANaNStopsAndTheLastCheckStays) {
  options_.global.learning_rate = 1e30;
  EXPECT_KVC_ERROR((void)Run(), kNumeric, kStage);
  EXPECT_TRUE(std::filesystem::exists(Partial() / "tuned-thin.safetensors"));
  EXPECT_FALSE(std::filesystem::exists(options_.output));
  options_.global.learning_rate = 0.04;
  EXPECT_GT(Run()["global_tuning"]["kept_step"].get<int64_t>(), 0);
}

TEST(GlobalRate, FallsWithWhatIsLeftWithWidthAndWithDepth) {
  ModelConfig config;
  config.model_width = 128;
  config.num_layers = 4;
  EXPECT_NEAR(GlobalRateShare(OutputLoss::kKl, 0.09, config), 0.3, 1e-12);
  EXPECT_NEAR(GlobalRateShare(OutputLoss::kKl, 7.0, config), 1.0, 1e-12);
  EXPECT_NEAR(GlobalRateShare(OutputLoss::kCe, 3.0, config), 0.2, 1e-12);
  config.num_layers = 2;  // no more than with four
  EXPECT_NEAR(GlobalRateShare(OutputLoss::kKl, 0.09, config), 0.3, 1e-12);
  config.num_layers = 30;
  config.model_width = 576;
  EXPECT_NEAR(GlobalRateShare(OutputLoss::kKl, 0.09, config), 0.3 * 128 / 576 * 4 / 30, 1e-12);
}

// A rate that throws the model far away is cut until it helps.
TEST_F(TuneGlobal, BacksOffFromARateThatRunsAway) {
  options_.global.learning_rate = 0.4;
  options_.global.pass_checks = 15;
  const Json result = Run();
  const Json& report = result["global_tuning"];
  EXPECT_LT(report["backoff"].get<double>(), 0.5);
  EXPECT_GT(report["kept_step"].get<int64_t>(), 0);
  EXPECT_LT(report["loss_after"].get<double>(), report["loss_before"].get<double>());
  EXPECT_LT(result["kld_after_tuning"].get<double>(), result["kld_before_tuning"].get<double>());
}

TEST_F(TuneGlobal, SaysHowNoisyItsGradientsAre) {
  const Json report = Run()["global_tuning"];
  EXPECT_EQ(report["backoff"], 1.0);
  EXPECT_GT(report["noise_tokens"].get<int64_t>(), 128);  // a window alone is not enough
  options_.global.step_tokens = 128;                      // nothing to compare with
  EXPECT_TRUE(Run()["global_tuning"]["noise_tokens"].is_null());
}

TEST_F(TuneGlobal, GoesOnFromLayersThatWereTunedAlone) {
  options_.tune = true;
  options_.global.learning_rate = 0.01;
  const Json result = Run();
  EXPECT_EQ(result["options"]["tune"], "local,global");
  EXPECT_GT(result["global_tuning"]["kept_step"].get<int64_t>(), 0);
  EXPECT_EQ(result["tuning"].size(), 4u);
  const std::string both = Hash();

  options_.tune_global = false;  // the same in two runs
  options_.output = temp_.path() / "local";
  const Json local = Run();
  options_.source = options_.model;
  options_.model = options_.output;
  options_.output = temp_.path() / "thin";
  options_.tune = false;
  options_.tune_global = true;
  const Json second = Run();
  EXPECT_EQ(Hash(), both);
  EXPECT_EQ(second["started_from"]["tuning"], local["tuning"]);
  EXPECT_EQ(second["layers"], local["layers"]);
  EXPECT_NEAR(second["kld_before_tuning"].get<double>(), local["kld_after_tuning"].get<double>(),
              1e-4 * local["kld_after_tuning"].get<double>());
}

TEST_F(TuneGlobal, TheControlOfTheDivergenceIsTheSource) {
  options_.control = true;
  const Json result = Run();
  EXPECT_EQ(result["control"]["kld"], 0.0);
  EXPECT_EQ(result["control"]["steps"], 0);
  EXPECT_EQ(result["control"]["perplexity"], result["perplexity_source"]);
}

TEST_F(TuneGlobal, TheControlOfTheCrossEntropyIsTrainedAsWell) {
  options_.control = true;
  options_.global.loss = OutputLoss::kCe;
  const Json whole = Run();
  const Json& control = whole["control"];
  EXPECT_EQ(control["steps"], 15);
  EXPECT_GT(control["kld"].get<double>(), 0.0);
  EXPECT_LT(control["loss_after"].get<double>(), control["loss_before"].get<double>());
  EXPECT_LT(control["kld"].get<double>(), whole["kld_after_tuning"].get<double>());
  const std::string hash = Hash();
  StopsAt stop("control", 5);  // the thin model is done and is not trained again
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  StopsAt again(kStage, 0);
  EXPECT_NO_THROW({ EXPECT_EQ(ToJson(FactorizeModel(options_, again)), whole); });
  EXPECT_EQ(Hash(), hash);
}

TEST_F(TuneGlobal, RefusesByName) {
  options_.held_back = 0;
  options_.control = true;
  EXPECT_KVC_ERROR((void)Run(), kUsage, "--control");
  options_.control = false;
  options_.held_back = 4;
  options_.source = options_.model;
  EXPECT_KVC_ERROR((void)Run(), kBadInput, "thin keys");
  options_.source.clear();
  StopsAt stop(kStage, 2);
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  options_.global.passes = 3;  // other settings than those of the unfinished run
  EXPECT_KVC_ERROR((void)Run(), kUsage, "global");
  EXPECT_KVC_ERROR((void)OutputLossFromName("mse"), kUsage, "kl, ce");
}

}  // namespace
}  // namespace kvc::factorize
