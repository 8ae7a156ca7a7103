#include "factorize/head_factors.h"

#include <algorithm>

#include "core/base/error.h"

namespace kvc::factorize {
namespace {

void Append(std::vector<float>& target, const linalg::Matrix& rows) {
  target.insert(target.end(), rows.data.begin(), rows.data.end());
}

// Returns the mean energy of the pair that each dimension of a head belongs to, for white inputs:
// |row|^2 + bias^2 of projection rows [first, first + D).
std::vector<double> PairEnergies(const ModelConfig& config,
                                 const std::vector<float>& weight,
                                 const std::vector<float>& bias,
                                 int64_t first) {
  const int64_t D = config.head_width;
  const int64_t E = config.model_width;
  const int64_t rotary = config.rotary_width();
  std::vector<double> energies(D, 0.0);
  for (int64_t d = 0; d < D; ++d) {
    double energy = 0.0;
    for (int64_t e = 0; e < E; ++e) {
      const double value = weight[(first + d) * E + e];
      energy += value * value;
    }
    if (!bias.empty()) energy += static_cast<double>(bias[first + d]) * bias[first + d];
    energies[d] += energy / 2;
    energies[d < rotary ? (d + rotary / 2) % rotary : d] += energy / 2;
  }
  return energies;
}

HeadMoments WeightMoments(const ModelConfig& config, const LayerKeyWeights& weights, int64_t head) {
  const int64_t D = config.head_width;
  HeadMoments moments{linalg::Matrix(D, D), linalg::Matrix(D, D)};
  const auto keys = PairEnergies(config, weights.k, weights.k_bias, head * D);
  for (int64_t d = 0; d < D; ++d) moments.keys(d, d) = keys[d];
  for (int64_t i = 0; i < config.group_size(); ++i) {
    const int64_t first = (head * config.group_size() + i) * D;
    const auto queries = PairEnergies(config, weights.q, weights.q_bias, first);
    for (int64_t d = 0; d < D; ++d) moments.queries(d, d) += queries[d];
  }
  return moments;
}

// Appends the rows of a projection [heads*D, columns] that hold the head's pairs, pair after pair.
void AppendPairRows(const std::vector<float>& weight,
                    const std::vector<int64_t>& pairs,
                    int64_t first,
                    int64_t head_width,
                    int64_t columns,
                    std::vector<float>& target) {
  for (const int64_t pair : pairs) {
    for (const int64_t row : {first + pair, first + pair + head_width / 2}) {
      const auto begin = weight.begin() + row * columns;
      target.insert(target.end(), begin, begin + columns);
    }
  }
}

}  // namespace

HeadMoments MomentsOf(const ModelConfig& config,
                      Objective objective,
                      const LayerKeyWeights& weights,
                      const KeyStatistics* statistics,
                      int64_t head) {
  if (objective == Objective::kWeight) return WeightMoments(config, weights, head);
  const bool weighted = WeightsOf(objective) != ErrorWeights::kNone;
  return {(weighted ? statistics->weighted_key_covariance : statistics->key_covariance)[head],
          (objective == Objective::kOutput ? statistics->weighted_query_gram
                                           : statistics->query_gram)[head]};
}

LayerFactors FactorPostRope(const ModelConfig& config,
                            const FactorRequest& request,
                            const KeyStatistics& statistics,
                            const linalg::Svd& svd) {
  const int64_t D = config.head_width;
  const bool weighted = WeightsOf(request.objective) != ErrorWeights::kNone;
  LayerFactors factors;
  for (int64_t g = 0; g < config.num_kv_heads; ++g) {
    const int64_t rank = request.RankOf(g, D);
    const HeadMoments moments = MomentsOf(config, request.objective, {}, &statistics, g);
    const KeyBasis basis = BalancedLogitBasis(moments.keys, moments.queries, svd);
    const ConstMatrixD reduce = basis.reduce.view().RowRange(0, rank);  // A^T
    linalg::Matrix mean(1, D);
    mean.data = weighted ? statistics.weighted_key_mean[g] : statistics.key_mean[g];
    for (const double value : linalg::MultiplyTransposed(mean.view(), reduce).data) {
      factors.k_reduce_bias.push_back(static_cast<float>(-value));
    }
    for (int64_t r = 0; r < rank; ++r) {
      factors.k_reduce.insert(factors.k_reduce.end(), reduce.row(r), reduce.row(r) + D);
    }
    Append(factors.q_reduce, linalg::Transpose(basis.rebuild.view().ColRange(0, rank)));
    factors.logit_errors.push_back(RelativeLogitError(basis, rank, moments.keys, moments.queries));
    factors.ranks.push_back(rank);
    factors.spectra.push_back(basis.spectrum);
  }
  return factors;
}

LayerFactors FactorRopePairs(const ModelConfig& config,
                             const FactorRequest& request,
                             const LayerKeyWeights& weights,
                             const KeyStatistics* statistics) {
  const int64_t D = config.head_width;
  const int64_t E = config.model_width;
  LayerFactors factors;
  for (int64_t g = 0; g < config.num_kv_heads; ++g) {
    const int64_t rank = request.RankOf(g, D);
    KVC_CHECK(rank % 2 == 0, kInternal, "rotation pairs: expected an even rank, got {}", rank);
    const HeadMoments moments = MomentsOf(config, request.objective, weights, statistics, g);
    PairBasis selected = SelectPairs(moments.keys, moments.queries);
    factors.logit_errors.push_back(
        RelativeLogitError(selected.basis, rank, moments.keys, moments.queries));
    factors.spectra.push_back(selected.basis.spectrum);
    factors.ranks.push_back(rank);
    selected.pairs.resize(rank / 2);
    AppendPairRows(weights.k, selected.pairs, g * D, D, E, factors.k);
    if (!weights.k_bias.empty()) {
      AppendPairRows(weights.k_bias, selected.pairs, g * D, D, 1, factors.k_bias);
    }
    for (int64_t i = 0; i < config.group_size(); ++i) {
      const int64_t first = (g * config.group_size() + i) * D;
      AppendPairRows(weights.q, selected.pairs, first, D, E, factors.q);
      if (!weights.q_bias.empty()) {
        AppendPairRows(weights.q_bias, selected.pairs, first, D, 1, factors.q_bias);
      }
    }
    factors.pairs.push_back(std::move(selected.pairs));
  }
  return factors;
}

}  // namespace kvc::factorize
