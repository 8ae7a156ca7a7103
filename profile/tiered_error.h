#pragma once
// The exact change of the attention's output when tokens lose coordinates: keys and values of every
// token are those of its tier (profile/mixed_curves.h has the formula).

#include <cstdint>
#include <span>
#include <vector>

#include <torch/types.h>

#include "profile/head_window.h"

namespace kvc::profile {

// Rows that a tier leaves of a head's evictable tokens.
struct TierTensors {
  torch::Tensor keys;    // [n, D_k]
  torch::Tensor values;  // [n, D_v]
};

// The output error of one kv head under choices that change from call to call.
class TieredError {
 public:
  // `first` is that of the n evictable tokens, which have a row in each tier; tiers[0] is full
  // width.
  TieredError(const HeadWindow& head, int64_t first, std::span<const TierTensors> tiers);

  // Returns the error for choice [n]: 0 is dropped, 1 + t is tier t. Takes time in proportion to
  // what changed since the last call. Throws kNumeric when the error is not finite.
  [[nodiscard]] double Measure(std::span<const uint8_t> choice);

 private:
  void Move(const std::vector<int64_t>& tokens, size_t tier, double sign);
  // Returns the outputs [rows, D_v] of those rows [r] of queries with a softmax of their own.
  [[nodiscard]] torch::Tensor OutputsOf(const torch::Tensor& rows,
                                        std::span<const uint8_t> choice) const;

  torch::Tensor all_;                        // logits of all tokens: [H/G * Q, T], double
  torch::Tensor all_values_;                 // [T, D_v], double
  int64_t first_;                            // of the evictable tokens
  std::vector<torch::Tensor> logits_;        // of each tier: [H/G * Q, n], double
  std::vector<torch::Tensor> exponentials_;  // of each tier's logits: [H/G * Q, n], double
  std::vector<torch::Tensor> values_;        // of each tier: [n, D_v], double
  torch::Tensor sum_;                        // of what is kept, e^logit v: [H/G * Q, D_v]
  torch::Tensor total_;                      // likewise e^logit: [H/G * Q]
  torch::Tensor output_;                     // with all tokens: [H/G * Q, D_v]
  torch::Tensor grams_;                      // double
  torch::Tensor weight_;
  std::vector<uint8_t> choice_;
};

}  // namespace kvc::profile
