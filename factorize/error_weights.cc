#include "factorize/error_weights.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "model/logit_weights.h"

namespace kvc::factorize {
namespace {

using torch::Tensor;

constexpr int64_t kQueryStride = 32;

// Returns w_it [H/G, T, T] of ErrorWeights::kOutput for the query heads of kv head `head`.
Tensor OutputWeights(const ModelConfig& config,
                     const model::LayerTaps& taps,
                     const model::LayerWeights& weights,
                     int64_t head) {
  const int64_t share = config.group_size();
  const int64_t D = config.head_width;
  const auto of_heads = [&](const Tensor& x) {  // [N, H*D] -> [H/G, N, D]
    const Tensor columns = x.narrow(1, head * share * D, share * D);
    return columns.reshape({x.size(0), share, D}).transpose(0, 1).contiguous();
  };
  const Tensor out = of_heads(weights.o);                                 // [H/G, E, D]
  const Tensor metric = torch::bmm(out.transpose(1, 2), out);             // [H/G, D, D]
  const Tensor a = taps.probabilities[0].narrow(0, head * share, share);  // [H/G, T, T]
  return model::LogitWeights(a, taps.v[0][head], of_heads(taps.attention[0]), metric);
}

}  // namespace

Tensor PairWeights(const ModelConfig& config,
                   ErrorWeights kind,
                   const model::LayerTaps& taps,
                   const model::LayerWeights& weights,
                   int64_t head) {
  const int64_t share = config.group_size();
  switch (kind) {
    case ErrorWeights::kAttention: {
      const Tensor a = taps.probabilities[0].narrow(0, head * share, share);  // [H/G, T, T]
      return (a - a * a).clamp_min_(0.0F);
    }
    case ErrorWeights::kOutput:
      return OutputWeights(config, taps, weights, head);
    case ErrorWeights::kNone:
      break;
  }
  KVC_THROW(kInternal, "error weights: expected a kind that weighs pairs");
}

RotationTables MakeRotationTables(const ModelConfig& config, int64_t num_tokens) {
  const std::vector<double> inverse =
      RopeInverseFrequencies(config.rope, config.head_width, num_tokens);
  const Tensor frequencies = torch::tensor(inverse, torch::kDouble);   // [r/2]
  const Tensor positions = torch::arange(num_tokens, torch::kDouble);  // [T]
  const Tensor angles = positions.unsqueeze(1) * frequencies;          // [T, r/2]
  const double factor = config.rope.attention_factor;
  return {(angles.cos() * factor).to(torch::kFloat), (angles.sin() * factor).to(torch::kFloat)};
}

Tensor MetQueries(const Tensor& q, const Tensor& w, const RotationTables& tables) {
  const int64_t share = q.size(0);
  const int64_t T = q.size(1);
  const int64_t D = q.size(2);
  const int64_t half = tables.cos.size(1);  // r/2
  Tensor met = torch::zeros({D, D}, torch::kDouble);
  const auto turn_back = [&](int64_t i) {
    const int64_t keys = i + 1;
    const Tensor cos = tables.cos.narrow(0, 0, keys);  // [i+1, r/2]
    const Tensor sin = tables.sin.narrow(0, 0, keys);
    const Tensor root = w.select(1, i).narrow(1, 0, keys).sqrt().unsqueeze(2);  // [H/G, i+1, 1]
    const Tensor query = q.select(1, i).unsqueeze(1);                           // [H/G, 1, D]
    const Tensor first = query.narrow(2, 0, half);
    const Tensor second = query.narrow(2, half, half);
    const Tensor rest = query.narrow(2, 2 * half, D - 2 * half).expand({share, keys, D - 2 * half});
    const Tensor turned =
        torch::cat({first * cos + second * sin, second * cos - first * sin, rest}, 2);
    const Tensor rows = turned.mul_(root).reshape({share * keys, D});
    met += torch::mm(rows.t(), rows).to(torch::kDouble);
  };
  for (int64_t i = std::min(kQueryStride, T) - 1; i < T; i += kQueryStride) turn_back(i);
  return met;
}

}  // namespace kvc::factorize
