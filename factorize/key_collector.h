#pragma once
// Collects KeyStatistics window by window from the taps of the streamed pass. (Shows LibTorch's
// types, as model/decoder.h does.)

#include <cstdint>
#include <vector>

#include "factorize/key_statistics.h"
#include "model/decoder.h"

namespace kvc::factorize {

// Sums over windows; Finish divides. All sums in double, in the order of the windows.
//   w_t = sum over queries i >= t and the group's query heads of a_it (1 - a_it): how much an error
// in key t can move attention. An unseen key may be wrong. (The group of a Gram matrix, or the
// query heads of one kv head for its covariance.)
class KeyStatisticsCollector {
 public:
  KeyStatisticsCollector(const ModelConfig& config, int64_t num_groups, bool with_attention);
  // One window [1, T] of one layer. `taps` needs projections, and probabilities with attention.
  void Add(const model::LayerTaps& taps, const model::LayerWeights& weights);
  // The layer's statistics; the collector starts again from zero.
  [[nodiscard]] KeyStatistics Finish();

 private:
  void Reset();
  void AddWeighted(const torch::Tensor& k, const torch::Tensor& w);
  void FinishWeighted(KeyStatistics& statistics) const;

  ModelConfig config_;
  int64_t num_groups_;
  bool with_attention_;
  int64_t tokens_ = 0;
  std::vector<torch::Tensor> gram_;            // [n] of [m, m] double
  std::vector<torch::Tensor> attention_gram_;  // [n] of [m, m] double
  std::vector<double> attention_mass_;         // [n] sum of w_t
  torch::Tensor query_energy_;                 // [H, D] double
  torch::Tensor key_sum_;                      // [G, D] double
  torch::Tensor key_second_;                   // [G, D, D] double
  torch::Tensor query_second_;                 // [G, D, D] double
  torch::Tensor weighted_key_sum_;             // [G, D] double
  torch::Tensor weighted_key_second_;          // [G, D, D] double
  torch::Tensor head_mass_;                    // [G] double: sums of w_t
};

}  // namespace kvc::factorize
