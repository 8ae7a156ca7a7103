#include "model/decoder.h"

#include <algorithm>
#include <vector>

#include "core/base/error.h"
#include "model/layer_step.h"
#include "model/norm.h"
#include "model/projections.h"

namespace kvc::model {
namespace {

using torch::Tensor;

// Queries in one block of the attention when no gradient and no probabilities are wanted: keys
// after the block are never touched, and the logits of a block stay in the cache.
constexpr int64_t kQueryBlock = 128;

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
      Project(config, weights, layer, AttentionInput(config, weights, hidden), rows.tokens);
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
