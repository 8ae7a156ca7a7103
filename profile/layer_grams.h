#pragma once
// Second moments of a layer, from which the bases of its cache follow (core/cache/cache_bases.h).
// profile/basis_grams.h collects them; the closed form is factorize's (BalancedLogitBasis), and
// pipeline/profile_bases.h joins the two.
//
//   C_K = E (k - mu)^T (k - mu),  C_Q = sum over the group's heads of E q^T q   -> key, query
//   C_V = E (v - nu)^T (v - nu),  M_V = sum over the group's heads of W_O^hT W_O^h -> value, output
// E is the mean over all tokens after the sinks, of all windows. Sinks are left out because the
// cache always keeps them whole, and because their keys and values are unlike all others.

#include <cstdint>
#include <vector>

namespace kvc::profile {

// Second moments, row-major, double. Keys that are narrower than the layer's widest end in zeros.
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

}  // namespace kvc::profile
