// The loss at the output against double precision, and gradients against differences.

#include "factorize/model_gradient.h"

#include <cmath>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "factorize/held_back.h"
#include "factorize/thin_layer.h"
#include "factorize/tune_global.h"
#include "model/embedding_rows.h"
#include "model/reference_run.h"
#include "model/threads.h"
#include "tests/factorize/tuning_stage.h"

namespace kvc::factorize {
namespace {

using testing::FamilyCase;
using torch::Tensor;

using Rows = std::vector<std::vector<double>>;

Rows ToRows(const Tensor& matrix) {
  Rows rows(matrix.size(0), std::vector<double>(matrix.size(1)));
  for (int64_t i = 0; i < matrix.size(0); ++i) {
    for (int64_t j = 0; j < matrix.size(1); ++j) rows[i][j] = matrix[i][j].item<double>();
  }
  return rows;
}

// log softmax of the logits of one hidden state: RMS norm with weights 1, then the head.
std::vector<double> LogProbabilities(const std::vector<double>& hidden,
                                     const Rows& head,
                                     double epsilon) {
  double square = 0.0;
  for (const double h : hidden) square += h * h;
  const double inverse = 1.0 / std::sqrt(square / static_cast<double>(hidden.size()) + epsilon);
  std::vector<double> logits;
  double sum = 0.0;
  for (const auto& row : head) {
    double logit = 0.0;
    for (size_t e = 0; e < row.size(); ++e) logit += row[e] * hidden[e] * inverse;
    logits.push_back(logit);
    sum += std::exp(logit);
  }
  for (double& logit : logits) logit -= std::log(sum);
  return logits;
}

struct OutputCase {
  ModelConfig config;
  model::OuterWeights outer;
  std::vector<int32_t> ids = {3, 0, 6, 6, 1};
  Tensor hidden, reference;  // [5, 4]
  Rows head;                 // [7][4]

  OutputCase() {
    torch::manual_seed(1);
    outer.final_norm = torch::ones({4});
    outer.lm_head = torch::randn({7, 4});
    hidden = torch::randn({5, 4});
    reference = hidden + 0.3 * torch::randn({5, 4});
    head = ToRows(outer.lm_head);
  }
  // The loss by definition, in double.
  [[nodiscard]] double Expected(const Rows& rows, OutputLoss loss) const {
    const Rows of_reference = ToRows(reference);
    double sum = 0.0;
    for (size_t t = 0; t + 1 < rows.size(); ++t) {
      const auto log_q = LogProbabilities(rows[t], head, config.norm_epsilon);
      const auto log_p = LogProbabilities(of_reference[t], head, config.norm_epsilon);
      if (loss == OutputLoss::kCe) {
        sum -= log_q[ids[t + 1]];
        continue;
      }
      for (size_t v = 0; v < log_p.size(); ++v) sum += std::exp(log_p[v]) * (log_p[v] - log_q[v]);
    }
    return sum / static_cast<double>(rows.size() - 1);
  }
};

class OutputLosses : public ::testing::TestWithParam<OutputLoss> {};

TEST_P(OutputLosses, AreWhatTheyAreCalledAndSoAreTheirGradients) {
  const OutputCase data;
  const OutputError error = MeasureOutput(data.config, data.outer, data.hidden,
                                          {data.ids, data.reference}, GetParam(), true);
  const Rows rows = ToRows(data.hidden);
  EXPECT_NEAR(error.loss, data.Expected(rows, GetParam()), 1e-5);
  for (size_t t = 0; t < rows.size(); ++t) {
    for (size_t e = 0; e < rows[t].size(); ++e) {
      constexpr double kStep = 1e-5;  // the error of the difference is of the order of 1e-10
      Rows up = rows, down = rows;
      up[t][e] += kStep;
      down[t][e] -= kStep;
      const double slope =
          (data.Expected(up, GetParam()) - data.Expected(down, GetParam())) / (2 * kStep);
      EXPECT_NEAR(error.hidden[t][e].item<double>(), slope, 1e-5) << t << ", " << e;
    }
  }
  const OutputError plain = MeasureOutput(data.config, data.outer, data.hidden,
                                          {data.ids, data.reference}, GetParam(), false);
  EXPECT_EQ(plain.loss, error.loss);
  EXPECT_FALSE(plain.hidden.defined());
}

INSTANTIATE_TEST_SUITE_P(Both, OutputLosses, ::testing::Values(OutputLoss::kKl, OutputLoss::kCe));

class GlobalFamilies : public ::testing::TestWithParam<FamilyCase> {
 protected:
  const Checkpoint source_ =
      Checkpoint::Open(testing::kRoot / "tests/golden/models" / GetParam().model);
  const Windows windows_ = testing::RandomWindows(source_.config().vocab_size);
  NoProgress progress_;
};

// Along its own direction the gradient is the slope of the loss; what no head uses stays 0.
TEST_P(GlobalFamilies, GradientIsTheSlope) {
  const auto [keys, factors] = testing::HalfWidth(source_, GetParam().layout, windows_);
  const auto reference = model::RunReference(source_, windows_, progress_);
  const ModelConfig thin = ThinConfig(source_.config(), keys);
  std::vector<model::LayerWeights> layers;
  for (int64_t l = 0; l < thin.num_layers; ++l) {
    layers.push_back(ThinLayer(thin, model::LoadLayer(source_, l), factors[l]));
  }
  const auto embedded = model::EmbedWindows(source_, windows_);
  ThreadPool pool(1);
  TrainedModel model(thin, layers, reference.outer, {embedded[0]}, {}, pool);
  const std::vector<TrainedWindow> windows = {{embedded[0], {windows_[0], reference.hidden[0]}},
                                              {embedded[1], {windows_[1], reference.hidden[1]}}};
  Tensor gradient = torch::full({model.count()}, std::nanf(""));
  const double loss = model.Loss(windows, OutputLoss::kKl, &gradient);
  EXPECT_EQ(loss, model.Loss(windows, OutputLoss::kKl, nullptr));
  const std::span all(windows);
  const double apart = model.Loss(all.first(1), OutputLoss::kKl, nullptr) +
                       model.Loss(all.last(1), OutputLoss::kKl, nullptr);
  EXPECT_NEAR(loss, apart, 1e-5 * apart);  // batches round otherwise
  const double norm = gradient.norm().item<double>();
  ASSERT_GT(norm, 0.0);
  // A step that changes the loss by some percent: far above float rounding, and the second order
  // cancels in the central difference.
  const double step = 0.02 * loss / norm;
  const Tensor start = model.Scaled();
  const auto loss_at = [&](double distance) {
    model.SetScaled(start + gradient * (distance / norm));
    return model.Loss(windows, OutputLoss::kKl, nullptr);
  };
  EXPECT_NEAR((loss_at(step) - loss_at(-step)) / (2 * step), norm, 0.05 * norm);
}

TEST_P(GlobalFamilies, ComeCloserToTheSource) {
  const kvc::testing::TempDir temp;
  auto [keys, factors] = testing::HalfWidth(source_, GetParam().layout, windows_);
  const auto reference = model::RunReference(source_, windows_, progress_);
  const double before = MeasureFactors(reference, source_, keys, factors, progress_).kld;
  GlobalTuneOptions options;
  options.step_tokens = 192;
  options.passes = 3;
  options.learning_rate = 0.004;
  const GlobalTuning tuned = TuneGlobally(source_, keys, windows_, options,
                                          temp.path() / "state.safetensors", progress_, factors);
  EXPECT_GT(tuned.kept_step, 0);
  EXPECT_LT(MeasureFactors(reference, source_, keys, factors, progress_).kld, 0.95 * before);
}

INSTANTIATE_TEST_SUITE_P(Models, GlobalFamilies, testing::kFamilyCases, testing::FamilyCaseName);

}  // namespace
}  // namespace kvc::factorize
