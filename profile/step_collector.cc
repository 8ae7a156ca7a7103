#include "profile/step_collector.h"

#include <string>

#include "core/base/rank_bytes.h"
#include "core/cache/bit_spread.h"
#include "profile/basis_grams.h"
#include "profile/head_basis.h"
#include "profile/latent_keys.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

std::string StepsName(int64_t layer, const char* what) {
  return "steps." + std::to_string(layer) + "." + what;
}

std::string ErrorsName(int64_t layer, const char* what) {
  return "errors." + std::to_string(layer) + "." + what;
}

// The fit of one head's rows [n * width] in the first columns of its basis [D, D].
StepFit FitOf(const std::vector<float>& rows, const linalg::BasisView& basis, int64_t width) {
  const int64_t count = std::ssize(rows) / width;
  std::vector<float> storage(rows.size());
  const MatrixF coordinates(storage.data(), count, width);
  linalg::ToCoordinates({rows.data(), count, width}, basis, coordinates);
  return FitSteps(coordinates);
}

// Returns the bytes of every k-th row of each head of a window [G, T, W].
std::string RowsAsBytes(const Tensor& window, int64_t every) {
  const Tensor rows = window.slice(1, 0, window.size(1), every).contiguous();
  std::string bytes;
  AppendBytes(bytes, std::span(rows.data_ptr<float>(), static_cast<size_t>(rows.numel())));
  return bytes;
}

// Returns the rows of head g, window after window: [n * width].
std::vector<float> HeadRows(const std::vector<std::string>& windows, int64_t g, int64_t heads) {
  std::vector<float> rows;
  for (const std::string& window : windows) {
    const size_t bytes = window.size() / heads;
    const auto of_head = FromBytes<float>(std::string_view(window).substr(g * bytes, bytes));
    rows.insert(rows.end(), of_head.begin(), of_head.end());
  }
  return rows;
}

}  // namespace

StepCollector::StepCollector(
    const ModelConfig& config, int64_t sinks, ProfileSums& sums, Ranks& ranks, bool latents_in_bits)
    : config_(config),
      sinks_(sinks),
      sums_(sums),
      ranks_(ranks),
      latents_in_bits_(latents_in_bits) {
  const auto add = [&](int64_t layer, const char* what, int64_t heads, int64_t width) {
    const int64_t columns = heads * width;
    sums_[StepsName(layer, what)].assign(columns * std::ssize(kStepFormats), 0.0);
    sums_[ErrorsName(layer, what)].assign(columns * kErrorLevels, 0.0);
  };
  for (int64_t l = 0; l < config.num_layers; ++l) {
    add(l, "value", config.num_kv_heads, config.head_width);
    const int64_t keys = WidestKey(config, l, latents_in_bits);
    if (keys > 0) add(l, "key", config.num_key_groups(), keys);
  }
}

void StepCollector::Visit(int64_t layer,
                          const model::LayerTaps& taps,
                          const model::LayerWeights& weights) {
  const auto after_sinks = [&](const Tensor& x) {  // [heads, T, W]
    return x.narrow(1, sinks_, x.size(1) - sinks_).clone();
  };
  values_.push_back(after_sinks(taps.v[0]));
  if (WidestKey(config_, layer, latents_in_bits_) == 0) return;
  keys_.push_back(
      after_sinks(latents_in_bits_ ? LatentRows(config_, weights, layer, taps.input) : taps.k[0]));
}

std::vector<StepFit> StepCollector::FitHeads(const std::vector<Tensor>& windows,
                                             int64_t num_windows,
                                             int64_t heads,
                                             const std::vector<float>& forward,
                                             const std::vector<float>& back,
                                             const std::vector<float>& mean,
                                             int64_t width) const {
  std::vector<std::string> mine;
  for (const Tensor& window : windows) {
    // All windows are equally long.
    const int64_t every = (num_windows * window.size(1) + kStepRows - 1) / kStepRows;
    mine.push_back(RowsAsBytes(window, every));
  }
  const std::vector<std::string> rows = ranks_.AllGatherParts(mine, num_windows);
  std::vector<std::string> fitted;
  for (const int64_t g : ranks_.PartsOf(heads)) {
    const StepFit fit =
        FitOf(HeadRows(rows, g, heads), HeadBasis(forward, back, mean, g, width), width);
    fitted.push_back(ToBytes(fit.steps) + ToBytes(fit.errors));
  }
  std::vector<StepFit> fits;
  for (const std::string& bytes : ranks_.AllGatherParts(fitted, heads)) {
    std::string_view left = bytes;
    StepFit& fit = fits.emplace_back();
    fit.steps = TakeValues<float>(left, std::ssize(kStepFormats) * width);
    fit.errors = FromBytes<float>(left);
  }
  return fits;
}

void StepCollector::Finish(int64_t layer, LayerBases& bases) {
  const torch::NoGradGuard no_grad;
  const int64_t num_windows = ranks_.Total(std::ssize(values_));
  const auto set = [&](const char* what, const std::vector<Tensor>& windows, int64_t heads,
                       int64_t width, const std::vector<float>& forward,
                       const std::vector<float>& back, const std::vector<float>& mean,
                       std::vector<float>& steps, std::vector<float>& errors) {
    if (forward.empty()) return;  // no basis to be in
    std::vector<double>& kept_steps = sums_.at(StepsName(layer, what));
    std::vector<double>& kept_errors = sums_.at(ErrorsName(layer, what));
    if (num_windows > 0) {
      kept_steps.clear();
      kept_errors.clear();
      for (const StepFit& fit : FitHeads(windows, num_windows, heads, forward, back, mean, width)) {
        kept_steps.insert(kept_steps.end(), fit.steps.begin(), fit.steps.end());
        kept_errors.insert(kept_errors.end(), fit.errors.begin(), fit.errors.end());
      }
    }
    steps.assign(kept_steps.begin(), kept_steps.end());
    errors.assign(kept_errors.begin(), kept_errors.end());
  };
  set("value", values_, bases.num_kv_heads, bases.value_width, bases.value, bases.output,
      bases.value_mean, bases.value_steps, bases.value_errors);
  if (bases.key_width > 0) {
    set("key", keys_, bases.key_groups(), bases.key_width, bases.key, bases.query, bases.key_mean,
        bases.key_steps, bases.key_errors);
  }
  SpreadOverLayer(bases);
  keys_.clear();
  values_.clear();
}

}  // namespace kvc::profile
