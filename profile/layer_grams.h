#pragma once
// Second moments of a layer, from which the bases of its cache follow (core/cache/cache_bases.h).
// profile/basis_grams.h collects them; the closed form is factorize's (MetricBasis), and
// pipeline/profile_bases.h joins the two.
//
//   C_K = E (k - mu)^T (k - mu),  C_V = E (v - nu)^T (v - nu)          -> key, value
// E is the mean over all tokens after the sinks, of all windows. Sinks are left out because the
// cache always keeps them whole, and because their keys and values are unlike all others.
//
// The metrics say what an error of a row costs: the squared change of the attention's output as the
// residual stream sees it, relative to it, to first order. For the query heads h of the group, a_ij
// the attention of query i to token j, o_i the head's output, S = W_O^hT W_O^h, and r_i the squared
// norm of what the layer reads,
//
//   dk_j moves o_i by a_ij scale (q_i . dk_j) (v_j - o_i),   dv_j by a_ij dv_j
//   M_K = sum over h of E_i [ sum_j a_ij^2 (v_j - o_i) S (v_j - o_i)^T q_i^T q_i scale^2 / r_i ]
//   M_V = sum over h of E_i [ sum_j a_ij^2 / r_i ] S                     -> key_metric,
//   value_metric
//
// (of latents: profile/latent_keys.h), so that errors dk, dv of covariance X, Y in all rows of a
// head, independent from row to row, cost tr(M_K X) + tr(M_V Y). E_i is the mean over the horizon's
// queries of all windows; j runs over all tokens behind the sinks.

#include <cstdint>
#include <vector>

namespace kvc::profile {

// Second moments, row-major, double. Keys that are narrower than the layer's widest end in zeros.
struct LayerGrams {
  int64_t num_kv_heads = 0;          // G
  int64_t key_width = 0;             // D_k, the layer's widest cached key; 0: no moments of keys
  int64_t value_width = 0;           // D_v
  std::vector<double> key;           // [K, D_k, D_k]: C_K
  std::vector<double> key_mean;      // [K, D_k]: mu
  std::vector<double> key_metric;    // [K, D_k, D_k]: M_K
  std::vector<double> value;         // [G, D_v, D_v]: C_V
  std::vector<double> value_mean;    // [G, D_v]: nu
  std::vector<double> value_metric;  // [G, D_v, D_v]: M_V
};

}  // namespace kvc::profile
