#include "model/projections.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "model/norm.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// cos and sin [T, r/2] of position * inverse frequency, times the attention factor, positions from
// `first` on. The frequencies are those of a sequence that ends with the last of these tokens, as
// in a forward pass of transformers with or without a cache. Frequencies and their product with the
// position are rounded to float as transformers does: the model was trained with those angles.
std::pair<Tensor, Tensor> RotaryTables(const ModelConfig& config,
                                       int64_t first,
                                       int64_t num_tokens,
                                       torch::Device device) {
  const std::vector<double> inverse =
      RopeInverseFrequencies(config.rope, config.head_width, first + num_tokens);
  const Tensor frequencies =
      torch::tensor(inverse, torch::kFloat64).to(device, torch::kFloat32);  // [r/2]
  const Tensor positions = torch::arange(first, first + num_tokens,
                                         torch::dtype(torch::kFloat32).device(device));  // [T]
  const Tensor angles = positions.unsqueeze(1) * frequencies;                            // [T, r/2]
  if (config.rope.attention_factor == 1.0) return {angles.cos(), angles.sin()};
  return {angles.cos() * config.rope.attention_factor, angles.sin() * config.rope.attention_factor};
}

// Rotates pairs (j, j + r/2) of the first r dimensions: x [N, heads, T, D], cos and sin [T, r/2].
Tensor Rotate(const Tensor& x, const std::pair<Tensor, Tensor>& tables) {
  const auto& [cos, sin] = tables;
  const int64_t half = cos.size(-1);
  const Tensor first = x.narrow(-1, 0, half);      // [N, heads, T, r/2]
  const Tensor second = x.narrow(-1, half, half);  // [N, heads, T, r/2]
  std::vector<Tensor> parts = {first * cos - second * sin, second * cos + first * sin};
  if (2 * half < x.size(-1)) parts.push_back(x.narrow(-1, 2 * half, x.size(-1) - 2 * half));
  return torch::cat(parts, -1);
}

// [N, T, heads*W] -> [N, heads, T, W], a view.
Tensor SplitHeads(const Tensor& x, int64_t heads) {
  return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
}

// [N, T, sum of widths] -> [N, heads, T, max width]; narrower heads end in zeros, which add nothing
// to a dot product.
Tensor SplitRagged(const Tensor& x, const std::vector<int64_t>& widths) {
  const int64_t widest = *std::max_element(widths.begin(), widths.end());
  std::vector<Tensor> heads;
  for (const Tensor& head : x.split_with_sizes(widths, -1)) {  // [N, T, R_g]
    heads.push_back(torch::constant_pad_nd(head, {0, widest - head.size(-1)}, 0));
  }
  return torch::stack(heads, 1);
}

// The rows of each kv head, padded with zero rows to the widest head: [sum_g R_g, C] -> [G, R, C].
Tensor PadHeads(const Tensor& rows, const std::vector<int64_t>& widths) {
  const int64_t widest = *std::max_element(widths.begin(), widths.end());
  std::vector<Tensor> heads;
  for (const Tensor& head : rows.split_with_sizes(widths, 0)) {  // [R_g, C]
    heads.push_back(torch::constant_pad_nd(head, {0, 0, 0, widest - head.size(0)}, 0));
  }
  return torch::stack(heads);
}

// Thin widths of the layer's heads: R_g of each kv head g, `share` times.
std::vector<int64_t> ThinWidths(const ModelConfig& config, int64_t layer, int64_t share) {
  std::vector<int64_t> widths;
  for (int64_t head = 0; head < config.num_kv_heads * share; ++head) {
    widths.push_back(config.key_width(layer, head / share));
  }
  return widths;
}

Tensor SplitValues(const ModelConfig& config, const LayerWeights& weights, const Tensor& x) {
  if (!weights.v.defined()) {
    return {};
  }
  return SplitHeads(torch::linear(x, weights.v, weights.v_bias), config.num_kv_heads);
}

Projections ProjectAbsorbed(const ModelConfig& config,
                            const LayerWeights& weights,
                            int64_t layer,
                            const Tensor& x) {
  KVC_CHECK(!config.has_rope, kUnsupported,
            "kvc.layout: \"absorb\" folds factors past the rotation; expected a model without "
            "rotary embedding");
  Projections p;
  p.q = SplitRagged(torch::linear(x, weights.q, weights.q_bias),
                    ThinWidths(config, layer, config.group_size()));
  p.k = SplitRagged(torch::linear(x, weights.k, weights.k_bias), ThinWidths(config, layer, 1));
  p.q_pre_rope = p.q;
  p.v = SplitValues(config, weights, x);
  return p;
}

// kRopePairs: a head's row holds its pairs one after the other, pair i the source's dimensions
// (j, j + D/2) with j = pairs[g][i]. x [N, heads, T, R], cos and sin of all pairs [T, D/2].
Tensor RotatePairs(const Tensor& x,
                   const std::pair<Tensor, Tensor>& tables,
                   const std::vector<std::vector<int64_t>>& pairs) {
  const int64_t half = x.size(3) / 2;
  const auto groups = static_cast<int64_t>(pairs.size());
  std::vector<int64_t> flat;  // [G * R/2]; narrower heads rotate their zeros as pair 0
  for (const std::vector<int64_t>& head : pairs) {
    flat.insert(flat.end(), head.begin(), head.end());
    flat.resize(flat.size() + half - head.size(), 0);
  }
  const Tensor index = torch::tensor(flat, torch::kInt64).to(x.device());
  const auto of_heads = [&](const Tensor& table) {  // [T, D/2] -> [heads, T, R/2]
    const Tensor chosen = table.index_select(1, index).view({-1, groups, half}).transpose(0, 1);
    return chosen.repeat_interleave(x.size(1) / groups, 0);
  };
  const Tensor cos = of_heads(tables.first);
  const Tensor sin = of_heads(tables.second);
  const Tensor split = x.unflatten(-1, {half, 2});  // [N, heads, T, R/2, 2]
  const Tensor first = split.select(-1, 0);
  const Tensor second = split.select(-1, 1);
  return torch::stack({first * cos - second * sin, second * cos + first * sin}, -1).flatten(-2);
}

Projections ProjectPairs(const ModelConfig& config,
                         const LayerWeights& weights,
                         int64_t layer,
                         const Tensor& x,
                         int64_t first) {
  Projections p;
  p.q_pre_rope = SplitRagged(torch::linear(x, weights.q, weights.q_bias),
                             ThinWidths(config, layer, config.group_size()));
  p.k = SplitRagged(torch::linear(x, weights.k, weights.k_bias), ThinWidths(config, layer, 1));
  p.v = SplitValues(config, weights, x);
  p.q = p.q_pre_rope;
  if (!config.rotated(layer)) return p;
  const auto tables = RotaryTables(config, first, x.size(1), x.device());
  const auto& pairs = config.keys.pairs.at(static_cast<size_t>(layer));
  p.q = RotatePairs(p.q_pre_rope, tables, pairs);
  p.k = RotatePairs(p.k, tables, pairs);
  return p;
}

// kPostRope: x [N, heads, T, D] times the matrix [sum_g R_g, D] of each head's kv head, plus
// `bias` [sum_g R_g]: [N, heads, T, R].
Tensor ReduceHeads(const Tensor& x,
                   const Tensor& matrix,
                   const Tensor& bias,
                   const std::vector<int64_t>& widths) {
  const auto groups = static_cast<int64_t>(widths.size());
  const Tensor heads = x.unflatten(1, {groups, x.size(1) / groups});  // [N, G, m, T, D]
  const Tensor columns = PadHeads(matrix, widths).transpose(1, 2);    // [G, D, R]
  Tensor reduced = torch::matmul(heads, columns.unsqueeze(1));        // [N, G, m, T, R]
  if (bias.defined()) {
    const Tensor offsets = PadHeads(bias.unsqueeze(1), widths).transpose(1, 2);  // [G, 1, R]
    reduced = reduced + offsets.unsqueeze(1);
  }
  return reduced.flatten(1, 2);
}

// Projects tokens at positions from `first` on, without the layer's window.
Projections ProjectAt(const ModelConfig& config,
                      const LayerWeights& weights,
                      int64_t layer,
                      const Tensor& x,
                      int64_t first) {
  const KeyLayout layout = config.keys.layout;
  if (layout == KeyLayout::kAbsorb) {
    return ProjectAbsorbed(config, weights, layer, x);
  }
  if (layout == KeyLayout::kRopePairs) {
    return ProjectPairs(config, weights, layer, x, first);
  }
  Projections p;
  Tensor keys = layout == KeyLayout::kLatent
                    ? KeysBeforeNorm(config, weights, layer, torch::linear(x, weights.k))
                    : torch::linear(x, weights.k, weights.k_bias);  // [N, T, G*D]
  Tensor queries = torch::linear(x, weights.q, weights.q_bias);     // [N, T, H*D]
  if (config.qk_norm == QkNorm::kWhole) {
    queries = RmsNorm(queries, weights.q_norm, config.norm_epsilon);
    keys = RmsNorm(keys, weights.k_norm, config.norm_epsilon);
  }
  p.q_pre_rope = SplitHeads(queries, config.num_heads);
  p.k = SplitHeads(keys, config.num_kv_heads);
  p.v = SplitValues(config, weights, x);
  if (config.qk_norm == QkNorm::kHead) {
    p.q_pre_rope = RmsNorm(p.q_pre_rope, weights.q_norm, config.norm_epsilon);
    p.k = RmsNorm(p.k, weights.k_norm, config.norm_epsilon);
  }
  p.q = p.q_pre_rope;
  if (config.rotated(layer)) {
    const auto tables = RotaryTables(config, first, x.size(1), x.device());
    p.q = Rotate(p.q_pre_rope, tables);
    p.k = Rotate(p.k, tables);
  }
  if (layout == KeyLayout::kPostRope) {
    const std::vector<int64_t> widths = ThinWidths(config, layer, 1);
    p.q = ReduceHeads(p.q, weights.q_reduce, {}, widths);
    p.k = ReduceHeads(p.k, weights.k_reduce, weights.k_reduce_bias, widths);
  }
  return p;
}

}  // namespace

Tensor KeysBeforeNorm(const ModelConfig& config,
                      const LayerWeights& weights,
                      int64_t layer,
                      const Tensor& latents) {
  // k_g = c_n B_g^T + bias_g
  const int64_t groups = config.keys.num_groups;
  const int64_t rows = config.num_kv_heads / groups * config.head_width;  // rows of B in a group
  std::vector<Tensor> keys;
  int64_t column = 0;
  for (int64_t n = 0; n < groups; ++n) {
    const int64_t rank = config.key_width(layer, n);
    const Tensor c = latents.narrow(-1, column, rank);                                // [N, T, R_n]
    const Tensor b = weights.k_rebuild.narrow(0, n * rows, rows).narrow(1, 0, rank);  // [rows, R_n]
    keys.push_back(torch::matmul(c, b.t()));
    column += rank;
  }
  const Tensor all = groups == 1 ? keys[0] : torch::cat(keys, -1);
  return weights.k_bias.defined() ? all + weights.k_bias : all;
}

Tensor KeysOfLatents(const ModelConfig& config,
                     const LayerWeights& weights,
                     int64_t layer,
                     const Tensor& latents,
                     int64_t first) {
  Tensor keys = KeysBeforeNorm(config, weights, layer, latents);  // [N, T, G*D]
  if (config.qk_norm == QkNorm::kWhole) keys = RmsNorm(keys, weights.k_norm, config.norm_epsilon);
  keys = SplitHeads(keys, config.num_kv_heads);
  if (config.qk_norm == QkNorm::kHead) keys = RmsNorm(keys, weights.k_norm, config.norm_epsilon);
  if (!config.rotated(layer)) return keys;
  return Rotate(keys, RotaryTables(config, first, latents.size(1), latents.device()));
}

Tensor RotateBack(const ModelConfig& config, int64_t layer, const Tensor& x, int64_t first) {
  if (!config.rotated(layer)) return x;
  const auto [cos, sin] = RotaryTables(config, first, x.size(2), x.device());
  return Rotate(x, {cos, -sin});
}

Tensor AttentionInput(const ModelConfig& config,
                      const LayerWeights& weights,
                      const Tensor& hidden) {
  if (config.norm_place == NormPlace::kBehind) return hidden;
  return Norm(config, hidden, weights.attn_norm, weights.attn_norm_bias);
}

Projections Project(const ModelConfig& config,
                    const LayerWeights& weights,
                    int64_t layer,
                    const Tensor& x,
                    int64_t first) {
  Projections p = ProjectAt(config, weights, layer, x, first);
  p.window = config.window(layer);
  return p;
}

}  // namespace kvc::model
