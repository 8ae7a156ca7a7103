#include "factorize/thin_layer.h"

#include <algorithm>
#include <utility>

#include "factorize/tuned_weights.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

// [rows, columns] of its own memory.
Tensor ToTensor(const std::vector<float>& values, int64_t columns) {
  return torch::tensor(at::ArrayRef<float>(values.data(), values.size())).view({-1, columns});
}

std::vector<float> ToFloats(const Tensor& tensor) {
  const Tensor dense = tensor.detach().cpu().contiguous();
  const auto* data = dense.data_ptr<float>();
  return {data, data + dense.numel()};
}

constexpr TunedWeight kTunedWeights[] = {
    {"q", &model::LayerWeights::q, &LayerFactors::q},
    {"k", &model::LayerWeights::k, &LayerFactors::k},
    {"k_rebuild", &model::LayerWeights::k_rebuild, &LayerFactors::k_rebuild},
    {"k_reduce", &model::LayerWeights::k_reduce, &LayerFactors::k_reduce},
    {"q_reduce", &model::LayerWeights::q_reduce, &LayerFactors::q_reduce}};

}  // namespace

std::span<const TunedWeight> TunedWeights() { return kTunedWeights; }

ModelConfig ThinConfig(const ModelConfig& source, const KeyFactors& keys) {
  ModelConfig config = source;
  config.keys = keys;
  return config;
}

model::LayerWeights ThinLayer(const ModelConfig& thin,
                              const model::LayerWeights& full,
                              const LayerFactors& factors) {
  const int64_t E = thin.model_width;
  model::LayerWeights weights = full;
  const auto replace = [](Tensor& weight, const std::vector<float>& values, int64_t columns) {
    if (!values.empty()) weight = ToTensor(values, columns);
  };
  replace(weights.q, factors.q, E);
  replace(weights.k, factors.k, E);
  replace(weights.k_reduce, factors.k_reduce, thin.head_width);
  replace(weights.q_reduce, factors.q_reduce, thin.head_width);
  replace(weights.k_rebuild, factors.k_rebuild,
          *std::max_element(factors.ranks.begin(), factors.ranks.end()));
  if (!factors.q_bias.empty()) weights.q_bias = ToTensor(factors.q_bias, 1).view({-1});
  if (!factors.k_bias.empty()) weights.k_bias = ToTensor(factors.k_bias, 1).view({-1});
  if (!factors.k_reduce_bias.empty()) {
    weights.k_reduce_bias = ToTensor(factors.k_reduce_bias, 1).view({-1});
  }
  // The bias is the same for every key of a query, so softmax ignores it.
  if (thin.keys.layout == KeyLayout::kAbsorb) weights.k_bias = Tensor();
  return weights;
}

void TakeFactors(const model::LayerWeights& weights, LayerFactors& factors) {
  for (const TunedWeight& tuned : kTunedWeights) {
    const Tensor& weight = weights.*tuned.weight;
    if (weight.defined()) factors.*tuned.values = ToFloats(weight);
  }
}

void RunLayer(const ModelConfig& config,
              const model::LayerWeights& weights,
              int64_t layer,
              ThreadPool& pool,
              std::vector<Tensor>& hidden) {
  pool.ParallelFor(static_cast<int64_t>(hidden.size()), 1, [&](int64_t i, int64_t) {
    const torch::NoGradGuard no_grad;
    const Tensor x = hidden[i].to(weights.attn_norm.device()).unsqueeze(0);  // [1, T, E]
    hidden[i] = model::LayerForward(config, weights, layer, x).squeeze(0).to(hidden[i].device());
  });
}

}  // namespace kvc::factorize
