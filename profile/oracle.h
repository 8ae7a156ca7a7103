#pragma once
// Oracle importance [LUKV]: how much the next tokens will actually use each cached token.
//
//   I_gj = max over h in group g, k in the horizon of  a_h,k,j * n_hj / sum_h',j' n_h'j'
//   n_hj = |v_j W_O^h|   (j', the context's tokens; h', all query heads of the layer)
//
// a is the softmax of query k over all keys up to k, the horizon's own keys included.
// Teacher-forced: the horizon is the text's own continuation.

#include <cstdint>

#include <torch/types.h>

#include "model/decoder.h"

namespace kvc::profile {

// Computes |v W_O^h| of a layer without the width of the model: W_O^h = Q_h R_h (QR), so |v W_O^hT|
// = |v R_h^T|.
class ValueNorms {
 public:
  // `o` [E, H*D] is the output projection of the layer.
  ValueNorms(const torch::Tensor& o, int64_t num_heads, int64_t num_kv_heads);
  // Returns the norms: values [G, T, D] -> [G, H/G, T].
  [[nodiscard]] torch::Tensor Of(const torch::Tensor& values) const;

 private:
  torch::Tensor r_transposed_;  // [G, H/G, D, min(E, D)]
};

// Returns the importance of the first `context` tokens for the tokens that follow them in the
// window: [G, context], float, contiguous. `taps` are of one window [1, ...] with projections; its
// tokens after `context` are the horizon. Throws kNumeric when an importance is not finite.
[[nodiscard]] torch::Tensor OracleImportance(const model::LayerTaps& taps,
                                             const ValueNorms& norms,
                                             int64_t context,
                                             double scale);

}  // namespace kvc::profile
