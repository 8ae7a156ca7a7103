#include "factorize/key_collector.h"

#include <algorithm>

#include "core/base/error.h"
#include "factorize/error_weights.h"

namespace kvc::factorize {
namespace {

// Rows are products of float, summed over one window in float, over windows in double.
torch::Tensor GramOf(const torch::Tensor& rows) {
  return torch::matmul(rows.transpose(-1, -2), rows).to(torch::kDouble);
}

linalg::Matrix ToMatrix(const torch::Tensor& tensor) {
  const torch::Tensor dense = tensor.contiguous();
  linalg::Matrix matrix(dense.size(0), dense.size(1));
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
                                               const CollectOptions& options)
    : config_(config), options_(options) {
  KVC_CHECK(!options.met || (options.weights == ErrorWeights::kOutput && config.has_rope),
            kInternal, "key statistics: met queries without weights or rotation");
  Reset();
  num_sums_ = 1;  // the tokens
  ForEachSum([&](const torch::Tensor& sum) { num_sums_ += sum.numel(); });
}

template <class Visit>
void KeyStatisticsCollector::ForEachSum(const Visit& visit) {
  for (torch::Tensor& gram : gram_) visit(gram);
  for (torch::Tensor& gram : weighted_gram_) visit(gram);
  for (torch::Tensor* sum :
       {&query_energy_, &key_sum_, &key_second_, &query_second_, &weighted_key_sum_,
        &weighted_key_second_, &weighted_query_second_, &head_mass_, &met_}) {
    visit(*sum);
  }
}

void KeyStatisticsCollector::TakeSums(std::vector<double>& sums) {
  sums.push_back(static_cast<double>(tokens_));
  ForEachSum([&](torch::Tensor& sum) {
    const auto* data = sum.data_ptr<double>();
    sums.insert(sums.end(), data, data + sum.numel());
    sum.zero_();
  });
  tokens_ = 0;
}

void KeyStatisticsCollector::Reset() {
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const int64_t m = G / options_.num_groups * D;
  const auto zeros = [](at::IntArrayRef shape) { return torch::zeros(shape, torch::kDouble); };
  const auto grams = [&](int64_t count) {
    std::vector<torch::Tensor> result(count);
    for (torch::Tensor& gram : result) gram = zeros({m, m});
    return result;
  };
  const bool by_group = options_.weights == ErrorWeights::kAttention;
  tokens_ = 0;
  gram_ = grams(options_.num_groups);
  weighted_gram_ = grams(options_.met ? G : (by_group ? options_.num_groups : 0));
  query_energy_ = zeros({config_.num_heads, D});
  key_sum_ = zeros({G, D});
  key_second_ = zeros({G, D, D});
  query_second_ = zeros({G, D, D});
  weighted_key_sum_ = zeros({G, D});
  weighted_key_second_ = zeros({G, D, D});
  weighted_query_second_ = zeros({G, D, D});
  head_mass_ = zeros({G});
  met_ = zeros({G, D, D});
}

void KeyStatisticsCollector::AddWeighted(const model::LayerTaps& taps,
                                         const model::LayerWeights& weights,
                                         const torch::Tensor& keys) {
  const int64_t share = config_.group_size();
  const int64_t T = keys.size(0);
  const int64_t in_group = config_.num_kv_heads / options_.num_groups;
  const int64_t m = keys.size(1) / options_.num_groups;
  const bool by_output = options_.weights == ErrorWeights::kOutput;
  RotationTables tables = {torch::empty({T, 0}), torch::empty({T, 0})};
  if (options_.met && rotated_) tables = MakeRotationTables(config_, T);
  torch::Tensor of_group;  // [T, 1] sum over the group's heads so far
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    const torch::Tensor pairs = PairWeights(config_, options_.weights, taps, weights, g);
    const torch::Tensor w = pairs.sum(at::IntArrayRef{0, 1}).unsqueeze(1);       // [T, 1]
    const torch::Tensor k = taps.k[0][g];                                        // [T, D]
    const torch::Tensor q = taps.q[0].narrow(0, g * share, share).contiguous();  // [H/G, T, D]
    weighted_key_sum_[g] += (k * w).sum(0, false, torch::kDouble);
    weighted_key_second_[g] += GramOf(k * w.sqrt());
    head_mass_[g] += w.sum(torch::kDouble);
    if (by_output) {
      const torch::Tensor by_query = pairs.sum(2).sqrt().unsqueeze(2);  // [H/G, T, 1]
      weighted_query_second_[g] += GramOf((q * by_query).reshape({share * T, -1}));
    }
    if (options_.met) {
      weighted_gram_[g] += GramOf(keys.narrow(1, g / in_group * m, m) * w.sqrt());
      met_[g] += MetQueries(q, pairs, tables);
    }
    of_group = g % in_group == 0 ? w : of_group + w;
    if (by_output || (g + 1) % in_group != 0) continue;
    weighted_gram_[g / in_group] += GramOf(keys.narrow(1, g / in_group * m, m) * of_group.sqrt());
  }
}

void KeyStatisticsCollector::Add(int64_t layer,
                                 const model::LayerTaps& taps,
                                 const model::LayerWeights& weights) {
  const torch::NoGradGuard no_grad;
  rotated_ = config_.rotated(layer);
  KVC_CHECK(taps.input.size(0) == 1, kInternal, "key statistics: one window at a time");
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const int64_t T = taps.input.size(1);
  const torch::Tensor keys = torch::matmul(taps.input[0], weights.k.t());  // [T, G*D]
  const int64_t m = keys.size(1) / options_.num_groups;
  if (options_.weights != ErrorWeights::kNone) AddWeighted(taps, weights, keys);
  for (int64_t n = 0; n < options_.num_groups; ++n) gram_[n] += GramOf(keys.narrow(1, n * m, m));
  const torch::Tensor q = taps.q[0];  // [H, T, D]
  const torch::Tensor k = taps.k[0];  // [G, T, D]
  query_energy_ += (q * q).sum(1, false, torch::kDouble);
  key_sum_ += k.sum(1, false, torch::kDouble);
  key_second_ += GramOf(k);
  query_second_ += GramOf(q.reshape({G, config_.group_size() * T, D}));
  tokens_ += T;
}

KeyStatistics KeyStatisticsCollector::Finish(int64_t layer, std::span<const double> sums) {
  const torch::NoGradGuard no_grad;
  KVC_CHECK(std::ssize(sums) == num_sums_ && sums[0] > 0.0, kInternal,
            "key statistics: expected {} sums of at least one token", num_sums_);
  rotated_ = config_.rotated(layer);
  tokens_ = static_cast<int64_t>(sums[0]);
  auto at = sums.begin() + 1;
  ForEachSum([&](torch::Tensor& sum) {
    std::copy_n(at, sum.numel(), sum.data_ptr<double>());
    at += sum.numel();
  });
  const int64_t G = config_.num_kv_heads;
  const int64_t D = config_.head_width;
  const auto count = static_cast<double>(tokens_);
  KeyStatistics statistics;
  for (const torch::Tensor& gram : gram_) statistics.gram.push_back(ToMatrix(gram / count));
  torch::Tensor energy = query_energy_.reshape({G, config_.group_size(), D}).sum(1) / count;
  if (rotated_) {
    const int64_t half = config_.rotary_width() / 2;
    torch::Tensor halves = energy.narrow(1, 0, 2 * half).reshape({G, 2, half});
    halves = halves.mean(1, true).expand({G, 2, half}).reshape({G, 2 * half});
    energy = torch::cat({halves, energy.narrow(1, 2 * half, D - 2 * half)}, 1);
  }
  statistics.query_energy = ToVector(energy);
  for (int64_t g = 0; g < G; ++g) {
    const torch::Tensor mean = key_sum_[g] / count;  // [D]
    statistics.key_mean.push_back(ToVector(mean));
    statistics.key_covariance.push_back(ToMatrix(key_second_[g] / count - mean.outer(mean)));
    statistics.query_gram.push_back(ToMatrix(query_second_[g] / count));
  }
  if (options_.weights != ErrorWeights::kNone) FinishWeighted(statistics);
  Reset();
  return statistics;
}

void KeyStatisticsCollector::FinishWeighted(KeyStatistics& statistics) const {
  const auto count = static_cast<double>(tokens_);
  const int64_t in_group = config_.num_kv_heads / options_.num_groups;
  for (int64_t g = 0; g < config_.num_kv_heads; ++g) {
    // Errors that weigh nothing, because values are all alike or attention is all on one token,
    // leave every key the same weight.
    const double mass = head_mass_[g].item<double>();
    const bool weighs = mass > 0.0;
    const torch::Tensor mean = weighs ? weighted_key_sum_[g] / mass : key_sum_[g] / count;  // [D]
    const torch::Tensor second = weighs ? weighted_key_second_[g] / mass : key_second_[g] / count;
    statistics.weighted_key_mean.push_back(ToVector(mean));
    statistics.weighted_key_covariance.push_back(ToMatrix(second - mean.outer(mean)));
    if (options_.weights == ErrorWeights::kOutput) {
      statistics.weighted_query_gram.push_back(ToMatrix(weighted_query_second_[g] / count));
    }
    if (!options_.met) continue;
    statistics.head_gram.push_back(
        ToMatrix(weighs ? weighted_gram_[g] / mass : gram_[g / in_group] / count));
    statistics.met_gram.push_back(ToMatrix(met_[g] / count));
  }
  if (options_.weights != ErrorWeights::kAttention) return;
  const torch::Tensor masses = head_mass_.reshape({options_.num_groups, -1}).sum(1);  // [n]
  for (int64_t n = 0; n < options_.num_groups; ++n) {
    const double mass = masses[n].item<double>();
    statistics.weighted_gram.push_back(
        ToMatrix(mass > 0.0 ? weighted_gram_[n] / mass : gram_[n] / count));
  }
}

}  // namespace kvc::factorize
