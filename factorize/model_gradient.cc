#include "factorize/model_gradient.h"

#include <utility>

#include <torch/autograd.h>

#include "factorize/thin_layer.h"
#include "model/placement.h"
#include "model/projections.h"

namespace kvc::factorize {

using torch::Tensor;

// A matrix of zeros has steps of size 0, by which nothing can be divided.
constexpr double kSmallestStep = 1e-30;

TrainedModel::TrainedModel(ModelConfig config,
                           const std::vector<model::LayerWeights>& layers,
                           const model::OuterWeights& outer,
                           std::vector<Tensor> hidden,
                           const model::Compute& compute,
                           ThreadPool& pool)
    : config_(std::move(config)),
      outer_(model::PlaceOn(outer, model::DeviceOf(compute))),
      precision_(compute.precision),
      entries_(layers.size()) {
  for (const model::LayerWeights& weights : layers) {
    layers_.push_back(model::PlaceOn(weights, model::DeviceOf(compute)));
  }
  Flatten(std::move(hidden), pool);
}

void TrainedModel::Flatten(std::vector<Tensor> hidden, ThreadPool& pool) {
  const torch::NoGradGuard no_grad;
  std::vector<Tensor> values, steps;
  int64_t offset = 0;
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    std::vector<Tensor> rows;  // [T, E] each
    for (const Tensor& window : hidden) {
      const Tensor x = window.to(layers_[l].attn_norm.device()).unsqueeze(0);  // [1, T, E]
      rows.push_back(model::AttentionInput(config_, layers_[l], x)[0]);
    }
    const Tensor x = torch::cat(rows);
    for (const TunedMember member : TrainedMembers(layers_[l])) {
      const Tensor& weight = layers_[l].*member;
      entries_[l].push_back({l, member, offset});
      values.push_back(weight.reshape({-1}));
      steps.push_back(StepSizes(config_, l, layers_[l], member, x).reshape({-1}));
      offset += weight.numel();
    }
    RunLayer(config_, layers_[l], l, pool, hidden);
  }
  values_ = torch::cat(values);
  steps_ = torch::cat(steps).clamp_min_(kSmallestStep);
  for (const auto& entries : entries_) {
    for (const Entry& entry : entries) {
      Tensor& weight = layers_[entry.layer].*entry.member;
      weight = values_.narrow(0, entry.offset, weight.numel()).view(weight.sizes());
    }
  }
}

void TrainedModel::SetScaled(const Tensor& scaled) {
  const torch::NoGradGuard no_grad;
  torch::mul_out(values_, scaled, steps_);
}

Tensor TrainedModel::LayerGradient(int64_t layer,
                                   const Tensor& input,
                                   const Tensor& output_gradient,
                                   Tensor& gradient) const {
  const torch::AutoGradMode grad(true);
  model::LayerWeights weights = layers_[layer];
  std::vector<Tensor> leaves;
  for (const Entry& entry : entries_[layer]) {
    Tensor& weight = weights.*entry.member;
    weight = weight.detach().requires_grad_(true);
    leaves.push_back(weight);
  }
  const bool first = layer == 0;
  const Tensor x = input.detach().requires_grad_(!first);  // [N, T, E]
  if (!first) leaves.push_back(x);
  const Tensor out = model::LayerForward(config_, weights, layer, x);  // [N, T, E]
  const std::vector<Tensor> gradients = torch::autograd::grad({out}, leaves, {output_gradient});
  const torch::NoGradGuard no_grad;
  for (size_t i = 0; i < entries_[layer].size(); ++i) {
    const int64_t offset = entries_[layer][i].offset;
    const int64_t count = gradients[i].numel();
    Tensor part = gradient.narrow(0, offset, count);
    torch::mul_out(part, gradients[i].reshape({-1}), steps_.narrow(0, offset, count));
  }
  return first ? Tensor() : gradients.back();
}

double TrainedModel::Loss(std::span<const TrainedWindow> windows,
                          OutputLoss loss,
                          Tensor* gradient) const {
  const torch::NoGradGuard no_grad;
  const bool with_gradient = gradient != nullptr;
  const model::PrecisionScope scope(with_gradient ? precision_ : model::Precision::kF32);
  std::vector<Tensor> embedded;
  for (const TrainedWindow& window : windows) embedded.push_back(window.embedded);
  Tensor hidden = torch::stack(embedded).to(outer_.final_norm.device());  // [N, T, E]
  std::vector<Tensor> inputs;  // [N, T, E] of every layer
  for (int64_t l = 0; l < config_.num_layers; ++l) {
    if (with_gradient) inputs.push_back(hidden);
    hidden = model::LayerForward(config_, layers_[l], l, hidden);
  }
  double sum = 0.0;
  std::vector<Tensor> gradients;  // [T, E] of each window, by what leaves the last layer
  for (size_t i = 0; i < windows.size(); ++i) {
    const model::PrecisionScope exact(model::Precision::kF32);
    OutputError error = MeasureOutput(config_, outer_, hidden[static_cast<int64_t>(i)],
                                      windows[i].target, loss, with_gradient);
    sum += error.loss;
    gradients.push_back(std::move(error.hidden));
  }
  if (!with_gradient) return sum;
  Tensor output_gradient = torch::stack(gradients);  // [N, T, E]
  for (int64_t l = config_.num_layers - 1; l >= 0; --l) {
    output_gradient = LayerGradient(l, inputs[l], output_gradient, *gradient);
    inputs.pop_back();
  }
  return sum;
}

}  // namespace kvc::factorize
