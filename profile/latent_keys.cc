#include "profile/latent_keys.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/row_format.h"
#include "model/projections.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

constexpr int64_t kTokensAtOnce = 64;

// Returns what the derivative of head g's norm makes of x [T, D, D], second moments of what meets
// its keys behind the norm; keys [T, G*D] before it.
Tensor BeforeNorm(const ModelConfig& config,
                  const model::LayerWeights& weights,
                  const Tensor& keys,
                  int64_t g,
                  Tensor x) {
  if (config.qk_norm == QkNorm::kNone) return x;
  const int64_t width = config.head_width;
  const bool whole = config.qk_norm == QkNorm::kWhole;
  const Tensor head = keys.narrow(1, g * width, width);  // [T, D]
  const Tensor normed = whole ? keys : head;
  const Tensor factor = whole ? weights.k_norm.narrow(0, g * width, width) : weights.k_norm;  // [D]
  const Tensor inverse =
      torch::rsqrt(normed.square().mean({-1}, /*keepdim=*/true) + config.norm_epsilon);  // [T, 1]
  x = x * factor * factor.unsqueeze(1) * inverse.square().unsqueeze(2);
  if (whole) return x;
  // The derivative takes out the key's own direction u: I - u u^T, but for the norm's epsilon.
  const Tensor u =
      (head * inverse / std::sqrt(static_cast<double>(width))).unsqueeze(2);  // [T, D, 1]
  x = x - torch::bmm(u, torch::bmm(u.transpose(1, 2), x));
  return x - torch::bmm(torch::bmm(x, u), u.transpose(1, 2));
}

}  // namespace

bool LatentsInBits(const ModelConfig& config, const NamedTiers& tiers) {
  return config.keys.layout == KeyLayout::kLatent &&
         std::ranges::any_of(tiers.tiers, [](const Tier& tier) {
           return tier.key_format && NeedsSteps(*tier.key_format);
         });
}

Tensor LatentRows(const ModelConfig& config,
                  const model::LayerWeights& weights,
                  int64_t layer,
                  const Tensor& x) {
  const Tensor all = torch::linear(x[0], weights.k);  // [T, sum_n R_n]
  const int64_t widest = weights.k_rebuild.size(1);
  std::vector<Tensor> groups;
  int64_t column = 0;
  for (int64_t n = 0; n < config.num_key_groups(); ++n) {
    const int64_t rank = config.key_width(layer, n);
    groups.push_back(torch::constant_pad_nd(all.narrow(1, column, rank), {0, widest - rank}, 0));
    column += rank;
  }
  return torch::stack(groups);
}

Tensor KeysOfLatents(const ModelConfig& config,
                     const model::LayerWeights& weights,
                     int64_t layer,
                     const Tensor& latents,
                     int64_t first) {
  std::vector<Tensor> groups;
  for (int64_t n = 0; n < config.num_key_groups(); ++n) {
    groups.push_back(latents[n].narrow(1, 0, config.key_width(layer, n)));
  }
  const Tensor rows = torch::cat(groups, 1).unsqueeze(0);  // [1, T, sum_n R_n]
  return model::KeysOfLatents(config, weights, layer, rows, first)[0].contiguous();
}

Tensor KeyMetricBeforeRotation(const ModelConfig& config,
                               const model::LayerWeights& weights,
                               int64_t layer,
                               const Tensor& x,
                               int64_t g,
                               int64_t sinks,
                               const HeadView& view) {
  const int64_t tokens = view.weights.size(2);
  const int64_t width = config.head_width;
  const Tensor queries = view.queries.reshape({-1, width}) * view.scale;  // [h*Q, D]
  const Tensor roots = view.weights.sqrt().reshape({-1, tokens}).t();     // [T, h*Q]
  const Tensor keys = model::KeysBeforeNorm(config, weights, layer, torch::linear(x, weights.k))[0];
  Tensor sum = torch::zeros({width, width}, torch::kFloat64);
  for (int64_t at = sinks; at < tokens; at += kTokensAtOnce) {
    const int64_t count = std::min(kTokensAtOnce, tokens - at);
    const Tensor rows = roots.narrow(0, at, count).unsqueeze(2) * queries;  // [T', h*Q, D]
    Tensor moments = torch::bmm(rows.transpose(1, 2), rows);                // [T', D, D]
    for (int side = 0; side < 2; ++side) {
      // [D, T', D]: R_j^T on the last dimension, then on the other one.
      const Tensor turned =
          model::RotateBack(config, layer, moments.transpose(0, 1).unsqueeze(0), at)[0];
      moments = turned.permute({1, 2, 0});
    }
    moments = BeforeNorm(config, weights, keys.narrow(0, at, count), g, moments);
    sum += moments.to(torch::kFloat64).sum(0);
  }
  return sum;
}

Tensor LatentMetric(const ModelConfig& config,
                    const model::LayerWeights& weights,
                    int64_t layer,
                    const Tensor& heads) {
  const int64_t width = config.head_width;
  const int64_t planes = config.num_kv_heads / config.num_key_groups();
  const Tensor all = weights.k_rebuild.to(torch::kFloat64);  // [G*D, max_n R_n]
  std::vector<Tensor> groups;
  for (int64_t n = 0; n < config.num_key_groups(); ++n) {
    Tensor sum = torch::zeros({all.size(1), all.size(1)}, torch::kFloat64);
    for (int64_t g = n * planes; g < (n + 1) * planes; ++g) {
      const Tensor b = all.narrow(0, g * width, width);
      sum += torch::mm(b.t(), torch::mm(heads[g], b));
    }
    const int64_t rank = config.key_width(layer, n);
    sum.narrow(0, rank, all.size(1) - rank).zero_();
    sum.narrow(1, rank, all.size(1) - rank).zero_();
    groups.push_back(sum);
  }
  return torch::stack(groups);
}

}  // namespace kvc::profile
