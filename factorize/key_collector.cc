#include "factorize/key_collector.h"

#include "core/error.h"

namespace kvc::factorize {
namespace {

// Rows are products of float, summed over one window in float, over windows in double.
torch::Tensor GramOf(const torch::Tensor& rows) {
  return torch::matmul(rows.transpose(-1, -2), rows).to(torch::kDouble);
}

Matrix ToMatrix(const torch::Tensor& tensor) {
  const torch::Tensor dense = tensor.contiguous();
  Matrix matrix(dense.size(0), dense.size(1));
  const auto* data = dense.data_ptr<double>();
  matrix.data.assign(data, data + dense.numel());
  return matrix;
}

std::vector<double> ToVector(const torch::Tensor& tensor) {
  const torch::Tensor dense = tensor.contiguous();
  const auto* data = dense.data_ptr<double>();
  return {data, data + dense.numel()};
}

}  // namespace

KeyStatisticsCollector::KeyStatisticsCollector(const ModelConfig& config,
                                               int64_t num_groups,
                                               bool with_attention)
    : config_(config), num_groups_(num_groups), with_attention_(with_attention) {
  Reset();
}

void KeyStatisticsCollector::Reset() {
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const int64_t m = G / num_groups_ * D;
  const auto zeros = [](at::IntArrayRef shape) { return torch::zeros(shape, torch::kDouble); };
  tokens_ = 0;
  gram_.assign(num_groups_, {});
  attention_gram_.assign(with_attention_ ? num_groups_ : 0, {});
  for (torch::Tensor& gram : gram_) gram = zeros({m, m});
  for (torch::Tensor& gram : attention_gram_) gram = zeros({m, m});
  attention_mass_.assign(num_groups_, 0.0);
  query_energy_ = zeros({config_.num_heads, D});
  key_sum_ = zeros({G, D});
  key_second_ = zeros({G, D, D});
  query_second_ = zeros({G, D, D});
  weighted_key_sum_ = zeros({G, D});
  weighted_key_second_ = zeros({G, D, D});
  head_mass_ = zeros({G});
}

// k [G, T, D] of tokens that weigh w [G, T].
void KeyStatisticsCollector::AddWeighted(const torch::Tensor& k, const torch::Tensor& w) {
  const torch::Tensor weights = w.unsqueeze(2);  // [G, T, 1]
  weighted_key_sum_ += (k * weights).sum(1, false, torch::kDouble);
  weighted_key_second_ += GramOf(k * weights.sqrt());
  head_mass_ += w.sum(1, false, torch::kDouble);
}

void KeyStatisticsCollector::Add(const model::LayerTaps& taps, const model::LayerWeights& weights) {
  const torch::NoGradGuard no_grad;
  KVC_CHECK(taps.input.size(0) == 1, kInternal, "key statistics: one window at a time");
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const int64_t T = taps.input.size(1);
  const torch::Tensor keys = torch::matmul(taps.input[0], weights.k.t());  // [T, G*D]
  const int64_t m = keys.size(1) / num_groups_;
  torch::Tensor moved;  // [G, T]: w of each kv head
  if (with_attention_) {
    const torch::Tensor& a = taps.probabilities[0];  // [H, T, T]
    moved = (a - a * a).sum(1).reshape({G, config_.group_size(), T}).sum(1).clamp_min(0.0F);
    AddWeighted(taps.k[0], moved);
  }
  for (int64_t n = 0; n < num_groups_; ++n) {
    const torch::Tensor rows = keys.narrow(1, n * m, m);  // [T, m]
    gram_[n] += GramOf(rows);
    if (!with_attention_) continue;
    const torch::Tensor w = moved.narrow(0, n * (G / num_groups_), G / num_groups_).sum(0);  // [T]
    attention_gram_[n] += GramOf(rows * w.sqrt().unsqueeze(1));
    attention_mass_[n] += w.sum(torch::kDouble).item<double>();
  }
  const torch::Tensor q = taps.q[0];  // [H, T, D]
  const torch::Tensor k = taps.k[0];  // [G, T, D]
  query_energy_ += (q * q).sum(1, false, torch::kDouble);
  key_sum_ += k.sum(1, false, torch::kDouble);
  key_second_ += GramOf(k);
  query_second_ += GramOf(q.reshape({G, config_.group_size() * T, D}));
  tokens_ += T;
}

KeyStatistics KeyStatisticsCollector::Finish() {
  KVC_CHECK(tokens_ > 0, kInternal, "key statistics: no window was added");
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const auto count = static_cast<double>(tokens_);
  KeyStatistics statistics;
  for (int64_t n = 0; n < num_groups_; ++n) {
    statistics.gram.push_back(ToMatrix(gram_[n] / count));
    if (with_attention_) {
      statistics.attention_gram.push_back(ToMatrix(attention_gram_[n] / attention_mass_[n]));
    }
  }
  torch::Tensor energy = query_energy_.reshape({G, config_.group_size(), D}).sum(1) / count;
  if (config_.has_rope) {
    const torch::Tensor halves = energy.reshape({G, 2, D / 2});
    energy = halves.mean(1, true).expand({G, 2, D / 2}).reshape({G, D});
  }
  statistics.query_energy = ToVector(energy);
  for (int64_t g = 0; g < G; ++g) {
    const torch::Tensor mean = key_sum_[g] / count;  // [D]
    statistics.key_mean.push_back(ToVector(mean));
    statistics.key_covariance.push_back(ToMatrix(key_second_[g] / count - mean.outer(mean)));
    statistics.query_gram.push_back(ToMatrix(query_second_[g] / count));
  }
  if (with_attention_) FinishWeighted(statistics);
  Reset();
  return statistics;
}

void KeyStatisticsCollector::FinishWeighted(KeyStatistics& statistics) const {
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    const torch::Tensor mean = weighted_key_sum_[g] / head_mass_[g];  // [D]
    statistics.attention_key_mean.push_back(ToVector(mean));
    statistics.attention_key_covariance.push_back(
        ToMatrix(weighted_key_second_[g] / head_mass_[g] - mean.outer(mean)));
  }
}

}  // namespace kvc::factorize
