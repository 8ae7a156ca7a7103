#pragma once
// Second moments from which a cache's bases follow (core/cache/cache_bases.h), collected in the
// pass that collects the curves. The closed form itself is factorize's (BalancedLogitBasis); the
// tool joins the two.
//
//   C_K = E (k - mu)^T (k - mu),  C_Q = sum over the group's heads of E q^T q   -> key, query
//   C_V = E (v - nu)^T (v - nu),  M_V = sum over the group's heads of W_O^hT W_O^h -> value, output
// E: over all tokens behind the sinks, of all windows. Sinks are left out because the cache always
// keeps them whole, and because their keys and values are unlike all others.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/profile_state.h"

namespace kvc::profile {

// Row-major, double. Keys that are narrower than the layer's widest end in zeros.
struct LayerGrams {
  int64_t num_kv_heads = 0;        // G
  int64_t key_width = 0;           // D_k, the layer's widest cached key; 0 where keys are latents
  int64_t value_width = 0;         // D_v
  std::vector<double> key;         // [G, D_k, D_k]: C_K
  std::vector<double> key_mean;    // [G, D_k]: mu
  std::vector<double> query;       // [G, D_k, D_k]: C_Q
  std::vector<double> value;       // [G, D_v, D_v]: C_V
  std::vector<double> value_mean;  // [G, D_v]: nu
  std::vector<double> output;      // [G, D_v, D_v]: M_V
};

// Adds to sums that the caller owns, names them "gram.LAYER.WHAT". `config` and `sums` must outlive
// it.
class GramCollector {
 public:
  // Tokens before `sinks` do not count.
  GramCollector(const ModelConfig& config, int64_t sinks, ProfileSums& sums);

  // One window at one layer: `taps` [1, ...] with projections, `output_grams` [H, D_v, D_v]
  // (OutputGrams). Throws kNumeric when a moment is not finite.
  void Visit(int64_t layer, const model::LayerTaps& taps, const torch::Tensor& output_grams);

  // Moments of the layer after `tokens` tokens went into them, sinks not counted.
  [[nodiscard]] LayerGrams Finish(int64_t layer, int64_t tokens) const;

 private:
  void Add(int64_t layer, const char* what, const torch::Tensor& sum);

  const ModelConfig& config_;
  int64_t sinks_ = 0;
  ProfileSums& sums_;
};

}  // namespace kvc::profile
