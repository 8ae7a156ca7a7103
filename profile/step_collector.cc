#include "profile/step_collector.h"

#include <string>

#include "profile/basis_grams.h"
#include "profile/code_steps.h"
#include "profile/head_basis.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

std::string SumName(int64_t layer, const char* what) {
  return "steps." + std::to_string(layer) + "." + what;
}

int64_t NumSteps(const ModelConfig& config, int64_t width) {
  return config.num_kv_heads * std::ssize(kStepFormats) * width;
}

// Steps [3, width] of one head's rows [n, >= width] in the first columns of its basis [D, D].
std::vector<float> StepsOf(const Tensor& rows,
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
  for (int64_t l = 0; l < config.num_layers; ++l) {
    sums_[SumName(l, "value")].assign(NumSteps(config, config.head_width), 0.0);
    const int64_t keys = WidestKey(config, l);
    if (keys > 0) sums_[SumName(l, "key")].assign(NumSteps(config, keys), 0.0);
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
                       const std::vector<float>& mean, std::vector<float>& steps) {
    if (forward.empty()) return;  // no basis to be in
    std::vector<double>& kept = sums_.at(SumName(layer, what));
    if (!windows.empty()) {
      kept.clear();
      for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
        const std::vector<float> own = StepsOf(RowsOf(windows, g), forward, back, mean, g);
        kept.insert(kept.end(), own.begin(), own.end());
      }
    }
    steps.assign(kept.begin(), kept.end());
  };
  set("value", values_, bases.value, bases.output, bases.value_mean, bases.value_steps);
  if (bases.key_width > 0) {
    set("key", keys_, bases.key, bases.query, bases.key_mean, bases.key_steps);
  }
  keys_.clear();
  values_.clear();
}

}  // namespace kvc::profile
