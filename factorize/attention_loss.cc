#include "factorize/attention_loss.h"

#include <algorithm>
#include <optional>

namespace kvc::factorize {
namespace {

using torch::Tensor;

// Returns the queries of a block: as many as stay in a processor's cache, or fill a device.
int64_t BlockQueries(const Tensor& q) { return q.is_cuda() ? 1024 : 128; }

// [G, m, C, D] of all heads -> [C, H*D], the order of W_O's columns, and back.
Tensor JoinHeads(const Tensor& x) { return x.permute({2, 0, 1, 3}).reshape({x.size(2), -1}); }
Tensor SplitHeads(const Tensor& x, int64_t groups, int64_t share) {
  return x.view({x.size(0), groups, share, -1})
      .permute({1, 2, 0, 3})
      .reshape({groups, share * x.size(0), -1});  // [G, m*C, D]
}

// softmax of queries rows [G, m*C, D_k] over keys [G, J, D_k], the last C of which are their own.
Tensor Probabilities(const Tensor& rows,
                     const Tensor& keys,
                     int64_t block,
                     std::optional<int64_t> window) {
  const Tensor logits = torch::bmm(rows, keys.transpose(1, 2));  // [G, m*C, J]
  model::HideUnseenKeys(logits.view({logits.size(0), -1, block, logits.size(2)}), window);
  return torch::softmax(logits, -1);
}

}  // namespace

AttentionError MeasureAttention(const ModelConfig& config,
                                const model::Projections& p,
                                const Tensor& o,
                                const AttentionTarget& target,
                                bool with_gradient) {
  const torch::NoGradGuard no_grad;
  const int64_t T = p.q.size(2);
  const int64_t G = config.num_kv_heads;
  const int64_t m = config.group_size();
  const Tensor q = (p.q.detach() * config.logit_scale()).view({G, m, T, -1});
  const Tensor k = p.k.detach()[0].contiguous();  // [G, T, D_k]
  const Tensor v = p.v.detach()[0].contiguous();  // [G, T, D]
  AttentionError result;
  Tensor dq, dk;
  if (with_gradient) {
    dq = torch::empty_like(q);
    dk = torch::zeros_like(k);
  }
  const int64_t step = BlockQueries(q);
  for (int64_t first = 0; first < T; first += step) {
    const int64_t block = std::min(step, T - first);  // C
    const int64_t begin = model::FirstSeenKey(first, p.window);
    const int64_t seen = first + block - begin;                                 // J
    const Tensor rows = q.narrow(2, first, block).reshape({G, m * block, -1});  // [G, m*C, D_k]
    const Tensor keys = k.narrow(1, begin, seen);
    const Tensor values = v.narrow(1, begin, seen);
    const Tensor a = Probabilities(rows, keys, block, p.window);                      // [G, m*C, J]
    const Tensor heads = torch::bmm(a, values);                                       // [G, m*C, D]
    const Tensor y = torch::matmul(JoinHeads(heads.view({G, m, block, -1})), o.t());  // [C, E]
    const Tensor difference = y - target.output.narrow(0, first, block);
    const Tensor weight = target.weight.narrow(0, first, block);  // [C]
    result.error += (difference.square().sum(-1) * weight).sum(torch::kDouble).item<double>();
    if (!with_gradient) continue;
    const Tensor dy = difference * (2.0F * weight).unsqueeze(1);   // [C, E]
    const Tensor dheads = SplitHeads(torch::matmul(dy, o), G, m);  // [G, m*C, D]
    Tensor ds = torch::bmm(dheads, values.transpose(1, 2));        // [G, m*C, J]
    ds.sub_((dheads * heads).sum(-1, /*keepdim=*/true)).mul_(a);
    dq.narrow(2, first, block).copy_(torch::bmm(ds, keys).view({G, m, block, -1}));
    dk.narrow(1, begin, seen).add_(torch::bmm(ds.transpose(1, 2), rows));  // rows hold the scale
  }
  if (with_gradient) {
    result.q = dq.mul_(config.logit_scale()).view(p.q.sizes());
    result.k = dk.view(p.k.sizes());
  }
  return result;
}

}  // namespace kvc::factorize
