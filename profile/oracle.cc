#include "profile/oracle.h"

#include "core/base/error.h"
#include "model/projections.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

// Returns the maximum over the horizon's queries of the attention that each context token receives:
// [G, H/G, context].
Tensor PeakAttention(const model::LayerTaps& taps, int64_t context, double scale) {
  const Tensor& q = taps.q;  // [1, H, T, D_k]
  const Tensor& k = taps.k;  // [1, G, T, D_k]
  const int64_t num_tokens = k.size(2);
  const int64_t horizon = num_tokens - context;
  const int64_t num_kv_heads = k.size(1);
  const int64_t share = q.size(1) / num_kv_heads;  // H/G
  const Tensor queries =
      q[0].narrow(1, context, horizon).reshape({num_kv_heads, share * horizon, q.size(3)});
  Tensor logits = torch::bmm(queries * scale, k[0].transpose(1, 2))
                      .view({num_kv_heads, share, horizon, num_tokens});
  // Query k of the horizon sees the context and the horizon up to itself.
  model::HideUnseenKeys(logits, taps.window);
  return torch::softmax(logits, -1).narrow(3, 0, context).amax(2);
}

}  // namespace

ValueNorms::ValueNorms(const Tensor& o, int64_t num_heads, int64_t num_kv_heads) {
  const int64_t width = o.size(1) / num_heads;
  const Tensor heads = o.view({o.size(0), num_heads, width}).permute({1, 0, 2});  // [H, E, D]
  const Tensor r = std::get<1>(torch::linalg_qr(heads, "r"));  // [H, min(E, D), D]
  r_transposed_ =
      r.transpose(1, 2).reshape({num_kv_heads, num_heads / num_kv_heads, width, r.size(1)});
}

Tensor ValueNorms::Of(const Tensor& values) const {
  return torch::matmul(values.unsqueeze(1), r_transposed_).square().sum(-1).sqrt();
}

Tensor OracleImportance(const model::LayerTaps& taps,
                        const ValueNorms& norms,
                        int64_t context,
                        double scale) {
  const Tensor peak = PeakAttention(taps, context, scale);        // [G, H/G, C]
  const Tensor norm = norms.Of(taps.v[0].narrow(1, 0, context));  // [G, H/G, C]
  const double total = norm.to(torch::kFloat64).sum().item<double>();
  // A layer whose values are all zero adds nothing, so nothing can be lost.
  const Tensor relative = total > 0.0 ? norm / total : norm;
  Tensor importance = (peak * relative).amax(1).contiguous();  // [G, C]
  KVC_CHECK(torch::isfinite(importance).all().item<bool>(), kNumeric,
            "oracle importance: expected finite numbers, got NaN or infinity; check the weights");
  return importance;
}

}  // namespace kvc::profile
