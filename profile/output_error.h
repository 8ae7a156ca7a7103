#pragma once
// Distance of the attention's output from the full cache's when a head keeps only some tokens, as
// the residual stream sees it:
//
//   e(S) = sum over the group's heads h, mean over the horizon's queries i, of
//          |(o_ih(S) - o_ih) W_O^hT|^2 / |x_i|^2
//   o_ih(S) = sum_{j in S} a_ihj v_j / sum_{j in S} a_ihj
//
// x is what the layer reads. The error is exact, not a sum over single tokens: values that are
// dropped together may cancel or add up. Heads and layers share one unit.

#include <cstdint>
#include <span>

#include <torch/types.h>

#include "model/decoder.h"

namespace kvc::profile {

// Returns M_h = W_O^hT W_O^h of a layer: [H, D, D], contiguous. `o` [E, H*D] is its output
// projection.
[[nodiscard]] torch::Tensor OutputProjectionGrams(const torch::Tensor& o, int64_t num_heads);

// Returns the squared norms of the rows of hidden [T, E]: [T], double.
[[nodiscard]] torch::Tensor RowEnergies(const torch::Tensor& hidden);

// Returns the weights 1 / (n |x|^2) of the squared errors of n rows with energies [n]: [n], double.
// A row of zeros (a token whose embedding is zero) has nothing to be relative to: weight 0.
[[nodiscard]] torch::Tensor EnergyWeights(const torch::Tensor& energies);

// Output error of one kv head at one layer and window.
class HeadOutputError {
 public:
  //   taps     of one window [1, ...] with projections; tokens after `context` are the horizon
  //   grams    [H, D, D]
  //   energy   [T]: |x|^2 of the window's rows
  HeadOutputError(const model::LayerTaps& taps,
                  const torch::Tensor& grams,
                  const torch::Tensor& energy,
                  int64_t kv_head,
                  int64_t context,
                  double scale);

  // Adds to `curve` [kCurveIntervals + 1] the error when the first i / kCurveIntervals of `order`
  // (rounded) are kept, together with every token that `order` does not list, the horizon included.
  void AddCurve(std::span<const int64_t> order, std::span<double> curve) const;

 private:
  // Returns by how much the outputs of those rows [r] of queries change without the tokens
  // `dropped`, through a softmax of their own: [r, D].
  [[nodiscard]] torch::Tensor ChangeWithout(const torch::Tensor& rows,
                                            const torch::Tensor& dropped) const;

  torch::Tensor logits_;     // [Q, T], Q = H/G * horizon
  torch::Tensor attention_;  // [Q, T]
  torch::Tensor values_;     // [T, D]
  torch::Tensor output_;     // [Q, D]: with all tokens
  torch::Tensor grams_;      // [H/G, D, D]
  torch::Tensor weight_;     // [Q]: of a query's squared error
};

}  // namespace kvc::profile
