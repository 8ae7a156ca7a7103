#pragma once
// Collects KeyStatistics window by window from the taps of the streamed pass. (This header shows
// LibTorch's types, like model/decoder.h.)

#include <cstdint>
#include <span>
#include <vector>

#include "factorize/key_statistics.h"
#include "model/decoder.h"

namespace kvc::factorize {

struct CollectOptions {
  int64_t num_groups = 1;
  ErrorWeights weights = ErrorWeights::kNone;
  bool met = false;  // head_gram and met_gram: kOutput, of a model with rotation
};

// Sums over the windows of a part (factorize/window_share.h), and divides the sums over all parts.
// All sums are in double and follow the order of the windows.
class KeyStatisticsCollector {
 public:
  KeyStatisticsCollector(const ModelConfig& config, const CollectOptions& options);
  // Adds one window [1, T] of one layer. `taps` needs projections, and what the weights need.
  void Add(int64_t layer, const model::LayerTaps& taps, const model::LayerWeights& weights);
  // Returns the number of sums.
  [[nodiscard]] int64_t num_sums() const { return num_sums_; }
  // Appends the sums over the windows since the last call, one tensor after the other, to `sums`,
  // and resets them to zero.
  void TakeSums(std::vector<double>& sums);
  // Returns the statistics of a layer whose sums over all windows are `sums`. The collector is at
  // zero before and afterwards.
  [[nodiscard]] KeyStatistics Finish(int64_t layer, std::span<const double> sums);

 private:
  void Reset();
  // Calls visit(tensor) for every sum but the tokens.
  template <class Visit>
  void ForEachSum(const Visit& visit);
  // keys [T, G*D] are as projected.
  void AddWeighted(const model::LayerTaps& taps,
                   const model::LayerWeights& weights,
                   const torch::Tensor& keys);
  void FinishWeighted(KeyStatistics& statistics) const;

  ModelConfig config_;
  CollectOptions options_;
  int64_t num_sums_ = 0;
  bool rotated_ = false;  // the layer's queries and keys
  int64_t tokens_ = 0;
  std::vector<torch::Tensor> gram_;           // [n] of [m, m] double
  std::vector<torch::Tensor> weighted_gram_;  // [n], with `met` [G], of [m, m] double
  torch::Tensor query_energy_;                // [H, D] double
  torch::Tensor key_sum_;                     // [G, D] double
  torch::Tensor key_second_;                  // [G, D, D] double
  torch::Tensor query_second_;                // [G, D, D] double
  torch::Tensor weighted_key_sum_;            // [G, D] double
  torch::Tensor weighted_key_second_;         // [G, D, D] double
  torch::Tensor weighted_query_second_;       // [G, D, D] double
  torch::Tensor head_mass_;                   // [G] double: sums of w_t
  torch::Tensor met_;                         // [G, D, D] double
};

}  // namespace kvc::factorize
