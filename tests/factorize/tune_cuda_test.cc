// Both tunings on a CUDA device, held against the CPU. Skipped where LibTorch sees no device.

#include <gtest/gtest.h>

#include "factorize/held_back.h"
#include "factorize/model_gradient.h"
#include "factorize/thin_layer.h"
#include "model/embedding_rows.h"
#include "model/reference_run.h"
#include "tests/factorize/tuning_stage.h"

namespace kvc::factorize {
namespace {

using model::Precision;
using testing::FamilyCase;

bool HasDevice() { return model::ChooseCompute("auto", "f32").cuda; }

constexpr const char* kNoDevice = "LibTorch sees no CUDA device";

class CudaFamilies : public ::testing::TestWithParam<FamilyCase> {
 protected:
  void SetUp() override {
    if (!HasDevice()) GTEST_SKIP() << kNoDevice;
    const auto [keys, factors] = testing::HalfWidth(source_, GetParam().layout, windows_);
    thin_ = ThinConfig(source_.config(), keys);
    for (int64_t l = 0; l < thin_.num_layers; ++l) {
      layers_.push_back(ThinLayer(thin_, model::LoadLayer(source_, l), factors[l]));
    }
    NoProgress silent;
    reference_ = model::RunReference(source_, windows_, silent);
    embedded_ = model::EmbedWindows(source_, windows_);
  }

  struct Result {
    double loss = 0.0;
    torch::Tensor gradient;  // [count], on the CPU
  };
  // Of three windows that go through the model together.
  [[nodiscard]] Result Measure(const model::Compute& compute) const {
    ThreadPool pool(1);
    const TrainedModel model(thin_, layers_, reference_.outer, {embedded_[0]}, compute, pool);
    std::vector<TrainedWindow> windows;
    for (size_t i = 0; i < 3; ++i) {
      windows.push_back({embedded_[i], {windows_[i], reference_.hidden[i]}});
    }
    torch::Tensor gradient = torch::full_like(model.Scaled(), std::nan(""));
    Result result;
    result.loss = model.Loss(windows, OutputLoss::kKl, &gradient);
    result.gradient = gradient.cpu();
    return result;
  }

  const Checkpoint source_ =
      Checkpoint::Open(testing::kRoot / "tests/golden/models" / GetParam().model);
  const Windows windows_ = testing::RandomWindows(source_.config().vocab_size);
  ModelConfig thin_;
  std::vector<model::LayerWeights> layers_;
  model::ReferenceRun reference_;
  std::vector<torch::Tensor> embedded_;  // [T, E] each
};

double RelativeError(const torch::Tensor& a, const torch::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

// Products of some hundred float32 terms in another order.
TEST_P(CudaFamilies, Float32AgreesWithTheCpu) {
  const Result cpu = Measure({});
  const Result cuda = Measure({true, Precision::kF32});
  EXPECT_NEAR(cuda.loss, cpu.loss, 1e-4 * cpu.loss);
  EXPECT_LT(RelativeError(cuda.gradient, cpu.gradient), 1e-3);
}

// bfloat16 keeps 8 bits of each operand: errors of 0.4 % of single products, which these models of
// random weights pass on. That it is used at all shows in the difference.
TEST_P(CudaFamilies, BFloat16PointsTheSameWay) {
  const Result exact = Measure({true, Precision::kF32});
  const Result mixed = Measure({true, Precision::kBF16});
  EXPECT_NEAR(mixed.loss, exact.loss, 0.1 * exact.loss);
  const double error = RelativeError(mixed.gradient, exact.gradient);
  EXPECT_LT(error, 0.2);
  EXPECT_GT(error, 1e-4);
}

INSTANTIATE_TEST_SUITE_P(Models, CudaFamilies, testing::kFamilyCases, testing::FamilyCaseName);

class TuneOnCuda : public testing::TuningStage {
 protected:
  void SetUp() override {
    if (!HasDevice()) GTEST_SKIP() << kNoDevice;
    TuningStage::SetUp();
    options_.global.step_tokens = 1024;
    options_.global.learning_rate = 0.04;
  }
  double Kld(bool cuda, Precision precision) {
    options_.tuning.cuda = cuda;
    options_.global.compute = {cuda, precision};
    return Run()["kld_after_tuning"].get<double>();
  }
};

TEST_F(TuneOnCuda, LayersComeAsCloseAsOnTheCpu) {
  options_.tune = true;
  const double cpu = Kld(false, Precision::kF32);
  EXPECT_NEAR(Kld(true, Precision::kF32), cpu, 0.02 * cpu);
}

TEST_F(TuneOnCuda, TheWholeModelComesAsCloseAsOnTheCpu) {
  options_.tune_global = true;
  const double cpu = Kld(false, Precision::kF32);
  EXPECT_NEAR(Kld(true, Precision::kF32), cpu, 0.02 * cpu);
  EXPECT_NEAR(Kld(true, Precision::kBF16), cpu, 0.05 * cpu);
  ExpectQuarterRank();
}

TEST_F(TuneOnCuda, AStoppedRunGoesOnFromItsState) {
  options_.tune_global = true;
  options_.global.compute = {true, Precision::kBF16};
  const double whole = Run()["kld_after_tuning"].get<double>();
  testing::StopsAt stop("global tuning", 3);
  EXPECT_THROW((void)FactorizeModel(options_, stop), Error);
  EXPECT_TRUE(std::filesystem::exists(Partial() / "tuned-thin.safetensors"));
  EXPECT_NEAR(Run()["kld_after_tuning"].get<double>(), whole, 0.02 * whole);
}

}  // namespace
}  // namespace kvc::factorize
