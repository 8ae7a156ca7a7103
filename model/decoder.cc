#include "model/decoder.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "core/base/error.h"
#include "model/layer_step.h"
#include "model/projections.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// Queries in one block of the attention when no gradient and no probabilities are wanted: keys
// after the block are never touched, and the logits of a block stay in the cache.
constexpr int64_t kQueryBlock = 128;

// y = x / sqrt(mean(x^2) + epsilon) * weight over the last dimension.
Tensor RmsNorm(const Tensor& x, const Tensor& weight, double epsilon) {
  const Tensor inverse = torch::rsqrt(x.square().mean({-1}, /*keepdim=*/true) + epsilon);
  return x * inverse * weight;
}

// The family's norm over the model width.
Tensor Norm(const ModelConfig& config, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (config.norm == NormKind::kLayer) {
    return torch::layer_norm(x, {x.size(-1)}, weight, bias, config.norm_epsilon);
  }
  return RmsNorm(x, weight, config.norm_epsilon);
}

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

// Keys before norm and rotation from the joint latents: k_g = c_n B_g^T + bias_g. [N, T, G*D]
Tensor RebuildKeys(const ModelConfig& config,
                   const LayerWeights& weights,
                   int64_t layer,
                   const Tensor& latents) {
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
  p.v = SplitHeads(torch::linear(x, weights.v, weights.v_bias), config.num_kv_heads);
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

// Projects tokens at positions from `first` on.
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
                    ? RebuildKeys(config, weights, layer, torch::linear(x, weights.k))
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

// softmax(scale q k^T) of queries first .. first + block - 1 over keys begin .. first + block - 1,
// n of them: q [N, G, m, T, D_k] (already scaled), keys [N*G, n, D_k] -> [N*G, m*block, n].
Tensor BlockProbabilities(const Tensor& q,
                          const Tensor& keys,
                          int64_t first,
                          int64_t block,
                          std::optional<int64_t> window) {
  const Tensor rows = q.narrow(3, first, block).reshape({keys.size(0), -1, keys.size(2)});
  const Tensor logits = torch::bmm(rows, keys.transpose(1, 2));
  HideUnseenKeys(logits.view({logits.size(0), -1, block, logits.size(2)}), window);
  return torch::softmax(logits, -1);
}

// Causal attention within the layer's window: [N, T, H*D]. Fills `probabilities` [N, H, T, T] when
// not null.
Tensor Attend(const ModelConfig& config, const Projections& p, Tensor* probabilities) {
  const int64_t windows = p.q.size(0);
  const int64_t tokens = p.q.size(2);
  const int64_t groups = config.num_kv_heads;
  const int64_t share = config.group_size();  // m
  const Tensor q = (p.q * config.logit_scale()).view({windows, groups, share, tokens, -1});
  const Tensor k = p.k.reshape({windows * groups, tokens, -1});
  const Tensor v = p.v.reshape({windows * groups, tokens, -1});
  const bool whole = probabilities != nullptr || torch::GradMode::is_enabled();
  const int64_t step = whole ? tokens : kQueryBlock;
  std::vector<Tensor> blocks;  // each [N, G, m, block, D]
  for (int64_t first = 0; first < tokens; first += step) {
    const int64_t block = std::min(step, tokens - first);
    const int64_t begin = FirstSeenKey(first, p.window);
    const int64_t keys = first + block - begin;
    const Tensor a = BlockProbabilities(q, k.narrow(1, begin, keys), first, block, p.window);
    if (probabilities != nullptr) {
      *probabilities = a.view({windows, groups * share, tokens, tokens});
    }
    blocks.push_back(
        torch::bmm(a, v.narrow(1, begin, keys)).view({windows, groups, share, block, -1}));
  }
  const Tensor out = blocks.size() == 1 ? blocks[0] : torch::cat(blocks, 3);
  return out.permute({0, 3, 1, 2, 4}).reshape({windows, tokens, -1});
}

Tensor Activate(const ModelConfig& config, const Tensor& x) {
  switch (config.activation) {
    case Activation::kGeluTanh:
      return torch::gelu(x, "tanh");
    case Activation::kGelu:
      return torch::gelu(x);
    case Activation::kSilu:
      return torch::silu(x);
  }
  KVC_THROW(kInternal, "activation: expected a known one");
}

// [N, T, E] -> [N, T, E], gated when the family has a gate.
Tensor Mlp(const ModelConfig& config, const LayerWeights& weights, const Tensor& x) {
  Tensor inner = torch::linear(x, weights.up, weights.up_bias);  // [N, T, mlp]
  if (weights.gate.defined()) {
    inner = Activate(config, torch::linear(x, weights.gate, weights.gate_bias)) * inner;
  } else {
    inner = Activate(config, inner);
  }
  return torch::linear(inner, weights.down, weights.down_bias);
}

// Finishes the layer after its attention [N, T, H*D]: output projection, residuals and MLP.
Tensor FinishLayer(const ModelConfig& config,
                   const LayerWeights& weights,
                   const Tensor& hidden,
                   const Tensor& attention) {
  const Tensor out = torch::linear(attention, weights.o, weights.o_bias);  // [N, T, E]
  if (config.norm_place == NormPlace::kBehind) {
    const Tensor middle = hidden + Norm(config, out, weights.attn_norm, weights.attn_norm_bias);
    const Tensor inner = Mlp(config, weights, middle);
    return middle + Norm(config, inner, weights.mlp_norm, weights.mlp_norm_bias);
  }
  const Tensor middle = hidden + out;
  return middle +
         Mlp(config, weights, Norm(config, middle, weights.mlp_norm, weights.mlp_norm_bias));
}

}  // namespace

Tensor AttentionInput(const ModelConfig& config,
                      const LayerWeights& weights,
                      const Tensor& hidden) {
  if (config.norm_place == NormPlace::kBehind) return hidden;
  return Norm(config, hidden, weights.attn_norm, weights.attn_norm_bias);
}

Projections Project(const ModelConfig& config,
                    const LayerWeights& weights,
                    int64_t layer,
                    const Tensor& x) {
  Projections p = ProjectAt(config, weights, layer, x, 0);
  p.window = config.window(layer);
  return p;
}

Tensor Embed(const ModelConfig& config, const OuterWeights& outer, const Tensor& ids) {
  const Tensor tokens = torch::embedding(outer.embedding, ids);  // [N, T, E]
  if (config.has_rope) {
    return tokens;
  }
  KVC_CHECK(ids.size(1) <= outer.position_embedding.size(0), kBadInput,
            "position embedding: expected at most {} tokens, got {}; use shorter windows",
            outer.position_embedding.size(0), ids.size(1));
  return tokens + outer.position_embedding.narrow(0, 0, ids.size(1));
}

Tensor LayerForward(const ModelConfig& config,
                    const LayerWeights& weights,
                    int64_t layer,
                    const Tensor& hidden,
                    const TapRequest& request,
                    LayerTaps* taps) {
  const Tensor x = AttentionInput(config, weights, hidden);  // [N, T, E]
  const Projections p = Project(config, weights, layer, x);
  Tensor* probabilities = taps != nullptr && request.probabilities ? &taps->probabilities : nullptr;
  const Tensor attention = Attend(config, p, probabilities);  // [N, T, H*D]
  if (taps != nullptr && request.projections) {
    taps->input = x;
    taps->q_pre_rope = p.q_pre_rope;
    taps->q = p.q;
    taps->k = p.k;
    taps->v = p.v;
    taps->window = p.window;
  }
  if (taps != nullptr && request.attention) {
    taps->attention = attention;
  }
  return FinishLayer(config, weights, hidden, attention);
}

Tensor LayerStep(const ModelConfig& config,
                 const LayerWeights& weights,
                 int64_t layer,
                 const Tensor& hidden,
                 LayerRows& rows) {
  const Projections p =
      ProjectAt(config, weights, layer, AttentionInput(config, weights, hidden), rows.tokens);
  rows.k.narrow(2, rows.tokens, 1).copy_(p.k);
  rows.v.narrow(2, rows.tokens, 1).copy_(p.v);
  ++rows.tokens;
  const int64_t begin = FirstSeenKey(rows.tokens - 1, config.window(layer));
  const int64_t seen = rows.tokens - begin;
  const int64_t sequences = hidden.size(0);
  const Tensor q = (p.q * config.logit_scale())
                       .reshape({sequences, config.num_kv_heads, config.group_size(), -1});
  const Tensor logits =  // [N, G, H/G, seen]
      torch::matmul(q, rows.k.narrow(2, begin, seen).transpose(2, 3));
  const Tensor out = torch::matmul(torch::softmax(logits, -1), rows.v.narrow(2, begin, seen));
  return FinishLayer(config, weights, hidden, out.reshape({sequences, 1, -1}));
}

Tensor Logits(const ModelConfig& config, const OuterWeights& outer, const Tensor& hidden) {
  const Tensor x = Norm(config, hidden, outer.final_norm, outer.final_norm_bias);  // [N, T, E]
  return torch::linear(x, outer.lm_head);
}

}  // namespace kvc::model
