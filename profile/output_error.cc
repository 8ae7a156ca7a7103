#include "profile/output_error.h"

#include "core/base/error.h"
#include "core/cache/profile_file.h"
#include "model/projections.h"

namespace kvc::profile {
namespace {

using torch::Tensor;

// Where a query has less than this of its attention left, the quotient below has lost its digits.
constexpr double kLeastKept = 1e-4;

// Logits of the horizon's queries over all keys up to themselves: [H/G * horizon, T].
Tensor HorizonLogits(const model::LayerTaps& taps, int64_t kv_head, int64_t context, double scale) {
  const Tensor keys = taps.k[0][kv_head];  // [T, D_k]
  const int64_t num_tokens = keys.size(0);
  const int64_t horizon = num_tokens - context;
  const int64_t share = taps.q.size(1) / taps.k.size(1);
  const Tensor queries = taps.q[0]
                             .narrow(0, kv_head * share, share)
                             .narrow(1, context, horizon)
                             .reshape({share * horizon, keys.size(1)});
  Tensor logits = torch::mm(queries * scale, keys.t()).view({share, horizon, num_tokens});
  model::HideUnseenKeys(logits, taps.window);
  return logits.view({share * horizon, num_tokens});
}

// Returns the tokens of `count` that point i of a curve keeps.
int64_t Kept(int64_t point, int64_t count) {
  return (point * count + kCurveIntervals / 2) / kCurveIntervals;
}

}  // namespace

Tensor OutputProjectionGrams(const Tensor& o, int64_t num_heads) {
  const int64_t width = o.size(1) / num_heads;
  const Tensor heads = o.view({o.size(0), num_heads, width}).permute({1, 0, 2});  // [H, E, D]
  return torch::bmm(heads.transpose(1, 2), heads).contiguous();
}

Tensor RowEnergies(const Tensor& hidden) {
  return hidden.to(torch::kFloat64).square().sum(-1).contiguous();
}

Tensor EnergyWeights(const Tensor& energies) {
  const Tensor weights = 1.0 / (energies * energies.size(0));
  return torch::where(energies == 0.0, torch::zeros_like(weights), weights);
}

HeadOutputError::HeadOutputError(const model::LayerTaps& taps,
                                 const Tensor& grams,
                                 const Tensor& energy,
                                 int64_t kv_head,
                                 int64_t context,
                                 double scale)
    : logits_(HorizonLogits(taps, kv_head, context, scale)),
      attention_(torch::softmax(logits_, -1)),
      values_(taps.v[0][kv_head].contiguous()),
      output_(torch::mm(attention_, values_)) {
  const int64_t share = taps.q.size(1) / taps.k.size(1);
  const int64_t horizon = values_.size(0) - context;
  grams_ = grams.narrow(0, kv_head * share, share);
  const Tensor weight = EnergyWeights(energy.narrow(0, context, horizon));
  weight_ = weight.to(torch::kFloat32).repeat({share});
}

Tensor HeadOutputError::ChangeWithout(const Tensor& rows, const Tensor& dropped) const {
  Tensor logits = logits_.index_select(0, rows).to(torch::kFloat64);  // [r, T]
  logits.index_fill_(1, dropped, -std::numeric_limits<double>::infinity());
  const Tensor output = torch::mm(torch::softmax(logits, 1), values_.to(torch::kFloat64));
  return output.to(torch::kFloat32) - output_.index_select(0, rows);
}

void HeadOutputError::AddCurve(std::span<const int64_t> order, std::span<double> curve) const {
  const int64_t count = std::ssize(order);
  const int64_t queries = attention_.size(0);
  const int64_t width = values_.size(1);
  const Tensor index = torch::tensor(std::vector<int64_t>(order.begin(), order.end()));
  const Tensor attention = attention_.index_select(1, index);  // [Q, n]
  const Tensor values = values_.index_select(0, index);        // [n, D]
  // Sums of what the dropped tokens add, from the last point backwards, so that dropping nothing
  // gives exactly zero.
  Tensor sums = torch::zeros({kCurveIntervals + 1, queries, width});
  Tensor weights = torch::zeros({kCurveIntervals + 1, queries});
  for (int64_t point = kCurveIntervals - 1; point >= 0; --point) {
    const int64_t begin = Kept(point, count);
    const int64_t tokens = Kept(point + 1, count) - begin;
    const Tensor part = attention.narrow(1, begin, tokens);  // [Q, tokens]
    sums[point] = sums[point + 1] + torch::mm(part, values.narrow(0, begin, tokens));
    weights[point] = weights[point + 1] + part.sum(1);
  }
  // o(S) - o = (w o - sum) / (1 - w), w and sum of what is dropped.
  const Tensor kept = (1.0 - weights).clamp_min(1e-6);
  Tensor change = (weights.unsqueeze(2) * output_ - sums) / kept.unsqueeze(2);
  for (int64_t point = 0; point < kCurveIntervals; ++point) {
    const Tensor faint = torch::nonzero(kept[point] < kLeastKept).flatten();
    if (faint.numel() == 0) continue;
    const int64_t begin = Kept(point, count);
    change[point].index_copy_(0, faint,
                              ChangeWithout(faint, index.narrow(0, begin, count - begin)));
  }
  const int64_t share = grams_.size(0);
  const Tensor heads = change.view({kCurveIntervals + 1, share, queries / share, width});
  const Tensor squared = (torch::matmul(heads, grams_) * heads).sum(-1);  // [points, H/G, horizon]
  const Tensor errors = torch::mv(squared.view({kCurveIntervals + 1, queries}), weight_)
                            .clamp_min(0.0)
                            .to(torch::kFloat64)
                            .contiguous();
  KVC_CHECK(torch::isfinite(errors).all().item<bool>(), kNumeric,
            "output error: expected finite numbers, got NaN or infinity; check the weights");
  const double* data = errors.data_ptr<double>();
  for (int64_t point = 0; point <= kCurveIntervals; ++point) curve[point] += data[point];
}

}  // namespace kvc::profile
