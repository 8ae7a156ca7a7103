#include "profile/step_collector.h"

#include <string>

#include "core/cache/bit_spread.h"
#include "profile/basis_grams.h"
#include "profile/code_steps.h"
#include "profile/head_basis.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

std::string StepsName(int64_t layer, const char* what) {
  return "steps." + std::to_string(layer) + "." + what;
}

std::string ErrorsName(int64_t layer, const char* what) {
  return "errors." + std::to_string(layer) + "." + what;
}

// The fit of one head's rows [n, >= width] in the first columns of its basis [D, D].
StepFit FitOf(const Tensor& rows,
              const std::vector<float>& forward,
              const std::vector<float>& back,
              const std::vector<float>& mean,
              int64_t head) {
  const int64_t width = rows.size(1);
  const linalg::BasisView basis = HeadBasis(forward, back, mean, head, width);
  std::vector<float> storage(static_cast<size_t>(rows.numel()));
  const MatrixF coordinates(storage.data(), rows.size(0), width);
  linalg::ToCoordinates({rows.data_ptr<float>(), rows.size(0), width}, basis, coordinates);
  return FitSteps(coordinates);
}

}  // namespace

StepCollector::StepCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums)
    : config_(config), sinks_(sinks), sums_(sums) {
  const auto add = [&](int64_t layer, const char* what, int64_t width) {
    const int64_t columns = config.num_kv_heads * width;
    sums_[StepsName(layer, what)].assign(columns * std::ssize(kStepFormats), 0.0);
    sums_[ErrorsName(layer, what)].assign(columns * kErrorLevels, 0.0);
  };
  for (int64_t l = 0; l < config.num_layers; ++l) {
    add(l, "value", config.head_width);
    const int64_t keys = WidestKey(config, l);
    if (keys > 0) add(l, "key", keys);
  }
}

void StepCollector::Visit(const model::LayerTaps& taps) {
  const auto after_sinks = [&](const Tensor& x) {
    return x[0].narrow(1, sinks_, x.size(2) - sinks_).clone();
  };
  values_.push_back(after_sinks(taps.v));
  if (config_.keys.layout != KeyLayout::kLatent) keys_.push_back(after_sinks(taps.k));
}

Tensor StepCollector::RowsOf(const std::vector<Tensor>& windows, int64_t head) {
  std::vector<Tensor> parts;
  int64_t count = 0;
  for (const Tensor& window : windows) count += window.size(1);
  const int64_t every = (count + kStepRows - 1) / kStepRows;
  for (const Tensor& window : windows) {
    parts.push_back(window[head].slice(0, 0, window.size(1), every));
  }
  return torch::cat(parts).contiguous();
}

void StepCollector::Finish(int64_t layer, LayerBases& bases) {
  const torch::NoGradGuard no_grad;
  const auto set = [&](const char* what, const std::vector<Tensor>& windows,
                       const std::vector<float>& forward, const std::vector<float>& back,
                       const std::vector<float>& mean, std::vector<float>& steps,
                       std::vector<float>& errors) {
    if (forward.empty()) return;  // no basis to be in
    std::vector<double>& kept_steps = sums_.at(StepsName(layer, what));
    std::vector<double>& kept_errors = sums_.at(ErrorsName(layer, what));
    if (!windows.empty()) {
      kept_steps.clear();
      kept_errors.clear();
      for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
        const StepFit fit = FitOf(RowsOf(windows, g), forward, back, mean, g);
        kept_steps.insert(kept_steps.end(), fit.steps.begin(), fit.steps.end());
        kept_errors.insert(kept_errors.end(), fit.errors.begin(), fit.errors.end());
      }
    }
    steps.assign(kept_steps.begin(), kept_steps.end());
    errors.assign(kept_errors.begin(), kept_errors.end());
  };
  set("value", values_, bases.value, bases.output, bases.value_mean, bases.value_steps,
      bases.value_errors);
  if (bases.key_width > 0) {
    set("key", keys_, bases.key, bases.query, bases.key_mean, bases.key_steps, bases.key_errors);
  }
  SpreadOverLayer(bases);
  keys_.clear();
  values_.clear();
}

}  // namespace kvc::profile
