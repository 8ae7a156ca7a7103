#pragma once
// What calibration tells about one layer's keys and queries: second moments of the key width, never
// of the model width. Collected by factorize/key_collector.h.

#include <cstdint>
#include <vector>

#include "factorize/matrix.h"

namespace kvc::factorize {

struct KeyStatistics {
  // For each key group n, m = heads in the group x D. k is the raw key x W_K^T: before bias, norm
  // and rotation.
  std::vector<Matrix> gram;            // [n] of [m, m]: mean of k^T k
  std::vector<Matrix> attention_gram;  // [n] the same, token t weighted by w_t (below); if asked
  // lambda: mean energy that a group's query heads have in each key dimension, sum over the query
  // heads. With rotation the mean over the dimension's pair (j, j + D/2).
  std::vector<double> query_energy;  // [G*D]
  // For each kv head, k and q as they enter the dot product.
  std::vector<std::vector<double>> key_mean;  // [G] of [D]: mu
  std::vector<Matrix> key_covariance;         // [G] of [D, D]: C_K, centred
  // The same, token t weighted by w_t (below); if asked.
  std::vector<std::vector<double>> attention_key_mean;
  std::vector<Matrix> attention_key_covariance;
  std::vector<Matrix> query_gram;  // [G] of [D, D]: C_Q, sum over the group's heads
};

}  // namespace kvc::factorize
