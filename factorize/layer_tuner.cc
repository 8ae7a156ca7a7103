#include "factorize/layer_tuner.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include <torch/autograd.h>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/base/rng.h"
#include "factorize/rank_tensors.h"
#include "factorize/tune_steps.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr double kBeta1 = 0.9;
constexpr double kBeta2 = 0.99;
constexpr double kEpsilon = 1e-12;          // gradients of a relative error are small
constexpr double kWarmupShare = 0.05;       // of all steps
constexpr int64_t kInputWindows = 8;        // that the sizes of inputs are taken from
constexpr int64_t kPassPatience = 2;        // passes without a better one that end the training
constexpr double kPassBackoff = 1.0 / 3.0;  // of the rate after a pass that made things worse

// Error and gradients of one window.
struct WindowResult {
  double error = 0.0;
  std::vector<Tensor> gradients;  // as the trained weights
};

struct AdamState {
  Tensor first, second;  // moments
  Tensor step;           // of every weight at rate 1: its shape, or one that expands to it
};

class Tuner {
 public:
  Tuner(const ModelConfig& thin,
        int64_t layer,
        const std::vector<TuneWindow>& windows,
        const TuneOptions& options,
        ThreadPool& pool,
        const model::LayerWeights& weights,
        Ranks& ranks)
      : thin_(thin),
        layer_(layer),
        windows_(windows),
        options_(options),
        pool_(pool),
        ranks_(ranks),
        weights_(weights),
        trained_(TrainedMembers(weights)),
        split_(SplitWindows(std::ssize(windows))) {
    const Tensor x = SomeInputs();  // [rows, E]
    for (const TunedMember weight : trained_) {
      const Tensor value = (weights.*weight).detach().clone();
      states_.push_back({torch::zeros_like(value), torch::zeros_like(value),
                         StepSizes(thin_, layer_, weights, weight, x)});
      weights_.*weight = value.requires_grad_(true);
    }
  }

  LayerTuneReport Run(const std::function<void(int64_t, int64_t)>& report) {
    LayerTuneReport result;
    result.error_before = CheckError();
    result.error_after = result.error_before;
    rate_ = options_.learning_rate * std::sqrt(std::min(1.0, result.error_before / TargetSize()));
    best_ = Values();
    const auto count = static_cast<int64_t>(split_.training.size());
    const int64_t step_windows =
        std::clamp<int64_t>(options_.step_tokens / windows_[0].hidden.size(0), 1, count);
    const int64_t pass_steps = (count + step_windows - 1) / step_windows;
    const int64_t steps = pass_steps * options_.passes;
    Rng rng(options_.seed + static_cast<uint64_t>(layer_));
    for (int64_t step = 0; step < steps; ++step) {
      if (step % pass_steps == 0) Shuffle(rng, split_.training);
      const int64_t first = step % pass_steps * step_windows;
      Step(first, std::min(step_windows, count - first), step, steps);
      report(step + 1, steps);
      const int64_t pass = (step + 1) / pass_steps;
      if ((step + 1) % pass_steps == 0 && !Keep(pass, result)) break;
    }
    return result;
  }

  // The weights of the best pass.
  [[nodiscard]] model::LayerWeights Best() const {
    model::LayerWeights weights = weights_;
    for (size_t i = 0; i < trained_.size(); ++i) weights.*trained_[i] = best_[i];
    return weights;
  }

 private:
  // Returns inputs of the projections: [rows, E].
  [[nodiscard]] Tensor SomeInputs() const {
    std::vector<Tensor> rows;
    const auto count = std::min<int64_t>(kInputWindows, std::ssize(windows_));
    for (int64_t i = 0; i < count; ++i) {
      rows.push_back(model::AttentionInput(thin_, weights_, windows_[i].hidden.unsqueeze(0))[0]);
    }
    return torch::cat(rows);
  }

  [[nodiscard]] std::vector<Tensor> Values() const {
    std::vector<Tensor> values;
    for (const TunedMember weight : trained_) {
      values.push_back((weights_.*weight).detach().clone());
    }
    return values;
  }

  [[nodiscard]] WindowResult RunWindow(int64_t window, bool with_gradient) const {
    const torch::AutoGradMode grad(with_gradient);
    const TuneWindow& data = windows_[window];
    const Tensor x = model::AttentionInput(thin_, weights_, data.hidden.unsqueeze(0));  // [1, T, E]
    const model::Projections p = model::Project(thin_, weights_, layer_, x);
    const AttentionError error = MeasureAttention(thin_, p, weights_.o, data.target, with_gradient);
    WindowResult result;
    result.error = error.error;
    if (with_gradient) {
      std::vector<Tensor> leaves;
      for (const TunedMember weight : trained_) leaves.push_back(weights_.*weight);
      result.gradients = torch::autograd::grad({p.q, p.k}, leaves, {error.q, error.k});
    }
    return result;
  }

  // Returns the mean error over the windows that are not trained on.
  double CheckError() {
    const std::vector<int64_t> mine = ranks_.PartsOf(std::ssize(split_.checked));
    std::vector<double> errors(mine.size());
    pool_.ParallelFor(std::ssize(mine), 1, [&](int64_t i, int64_t) {
      errors[i] = RunWindow(split_.checked[mine[i]], false).error;
    });
    errors = ShareNumbers(ranks_, errors, std::ssize(split_.checked));
    double sum = 0.0;
    for (const double error : errors) sum += error;
    CheckFinite(sum, "error");
    return sum / static_cast<double>(errors.size());
  }

  // Returns the error that would result if the attention added nothing.
  [[nodiscard]] double TargetSize() const {
    double sum = 0.0;
    for (const int64_t window : split_.checked) {
      const AttentionTarget& target = windows_[window].target;
      const Tensor sizes = target.output.square().sum(-1) * target.weight;  // [T]
      sum += sizes.sum(torch::kDouble).item<double>();
    }
    return std::max(sum / static_cast<double>(split_.checked.size()), kEpsilon);
  }

  void CheckFinite(double value, const char* what) const {
    KVC_CHECK(std::isfinite(value), kNumeric,
              "tuning of layer {}: expected a finite {}, got {}; the layers before it are kept, "
              "run again with a lower --lr",
              layer_, what, value);
  }

  // Collective: returns the sums of the gradients of windows first .. first + count - 1 of the
  // pass.
  [[nodiscard]] std::vector<Tensor> Gradients(int64_t first, int64_t count) const {
    const std::vector<int64_t> mine = ranks_.PartsOf(count);
    std::vector<WindowResult> results(mine.size());
    pool_.ParallelFor(std::ssize(mine), 1, [&](int64_t i, int64_t) {
      results[i] = RunWindow(split_.training[first + mine[i]], true);
    });
    const torch::NoGradGuard no_grad;
    if (!ranks_.is_only()) return SumOverRanks(results, count);
    for (int64_t i = 1; i < count; ++i) {
      for (size_t w = 0; w < trained_.size(); ++w) {
        results[0].gradients[w].add_(results[i].gradients[w]);
      }
    }
    return std::move(results[0].gradients);
  }

  [[nodiscard]] std::vector<Tensor> SumOverRanks(const std::vector<WindowResult>& results,
                                                 int64_t count) const {
    int64_t length = 0;
    for (const TunedMember weight : trained_) length += (weights_.*weight).numel();
    OrderedSum<float> sum(ranks_, count, length);
    for (const WindowResult& result : results) {
      std::vector<Tensor> flat;
      for (const Tensor& gradient : result.gradients) flat.push_back(gradient.flatten().cpu());
      sum.Add(Floats(torch::cat(flat)));
    }
    std::vector<float> all = sum.Finish();
    std::vector<Tensor> gradients;
    int64_t at = 0;
    for (const TunedMember weight : trained_) {
      const Tensor& like = weights_.*weight;
      gradients.push_back(torch::from_blob(all.data() + at, like.sizes(), torch::kFloat32)
                              .clone()
                              .to(like.device()));
      at += like.numel();
    }
    return gradients;
  }

  void Step(int64_t first, int64_t count, int64_t step, int64_t steps) {
    const std::vector<Tensor> gradients = Gradients(first, count);
    const torch::NoGradGuard no_grad;
    const double warmup = 1.0 + kWarmupShare * static_cast<double>(steps);
    const double at = static_cast<double>(step);
    const double cosine =
        0.5 * (1.0 + std::cos(std::numbers::pi * at / static_cast<double>(steps)));
    const double rate = rate_ * cosine * std::min(1.0, (at + 1.0) / warmup);
    ++moments_;
    for (size_t w = 0; w < trained_.size(); ++w) {
      const Tensor& gradient = gradients[w];
      CheckFinite(gradient.abs().sum(torch::kDouble).item<double>(), "gradient");
      Apply(states_[w], gradient, rate, moments_, weights_.*trained_[w]);
    }
  }

  static void Apply(
      AdamState& state, const Tensor& g, double rate, int64_t steps, const Tensor& weight) {
    const auto t = static_cast<double>(steps);
    state.first.mul_(kBeta1).add_(g, 1.0 - kBeta1);
    state.second.mul_(kBeta2).addcmul_(g, g, 1.0 - kBeta2);
    const Tensor root = (state.second / (1.0 - std::pow(kBeta2, t))).sqrt_().add_(kEpsilon);
    const Tensor direction = state.first / root;
    weight.addcmul_(direction, state.step, -rate / (1.0 - std::pow(kBeta1, t)));
  }

  // Checks what the pass has reached; returns false when training should end.
  bool Keep(int64_t pass, LayerTuneReport& result) {
    const double error = CheckError();
    if (error < result.error_after) {
      result.error_after = error;
      result.kept_pass = pass;
      best_ = Values();
    } else {
      Undo();
    }
    return pass - result.kept_pass < kPassPatience;
  }

  // Returns to the best weights and continues more slowly from there.
  void Undo() {
    const torch::NoGradGuard no_grad;
    for (size_t w = 0; w < trained_.size(); ++w) {
      (weights_.*trained_[w]).copy_(best_[w]);
      states_[w].first.zero_();
      states_[w].second.zero_();
    }
    moments_ = 0;
    rate_ *= kPassBackoff;
  }

  const ModelConfig& thin_;
  const int64_t layer_;
  const std::vector<TuneWindow>& windows_;
  const TuneOptions& options_;
  ThreadPool& pool_;
  Ranks& ranks_;
  model::LayerWeights weights_;
  const std::vector<TunedMember> trained_;
  TuneSplit split_;  // training windows in the order of the pass
  std::vector<AdamState> states_;
  int64_t moments_ = 0;  // steps that the moments hold
  double rate_ = 0.0;    // at the top of the schedule
  std::vector<Tensor> best_;
};

}  // namespace

LayerTuneReport TuneLayer(const ModelConfig& thin,
                          int64_t layer,
                          const std::vector<TuneWindow>& windows,
                          const TuneOptions& options,
                          ThreadPool& pool,
                          const std::function<void(int64_t done, int64_t total)>& report,
                          model::LayerWeights& weights,
                          Ranks& ranks) {
  KVC_CHECK(windows.size() >= 2, kInternal, "tuning: expected two windows at least");
  Tuner tuner(thin, layer, windows, options, pool, weights, ranks);
  const LayerTuneReport result = tuner.Run(report);
  weights = tuner.Best();
  return result;
}

}  // namespace kvc::factorize
