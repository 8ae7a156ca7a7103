#pragma once
// What calibration tells about one layer's keys and queries: second moments of the key width, never
// of the model width. Collected by factorize/key_collector.h.

#include <cstdint>
#include <vector>

#include "linalg/matrix.h"

namespace kvc::factorize {

// What weighs an error in the logit of query i and key t (w_it, factorize/error_weights.h). Summed
// over queries and heads it weighs token t: w_t.
enum class ErrorWeights {
  kNone,       // every token alike
  kAttention,  // how much the error moves the attention
  kOutput,     // what it does to the attention's output
};

struct KeyStatistics {
  // For each key group n, m = heads in the group x D. k is the raw key x W_K^T: before bias, norm
  // and rotation.
  std::vector<linalg::Matrix> gram;  // [n] of [m, m]: mean of k^T k
  std::vector<linalg::Matrix>
      weighted_gram;  // [n] the same, token t weighted by w_t of the group; kAttention
  // kOutput: for each kv head, token t weighted by w_t of that head.
  std::vector<linalg::Matrix> head_gram;  // [G] of [m, m]: mean of its group's k^T k
  // The queries that the head's keys meet, z_it = q_i turned back by the key's position.
  std::vector<linalg::Matrix> met_gram;  // [G] of [D, D]: sum of w_it z_it^T z_it per token
  // lambda: mean energy that a group's query heads have in each key dimension, sum over the query
  // heads. With rotation the mean over the dimension's pair (j, j + D/2).
  std::vector<double> query_energy;  // [G*D]
  // For each kv head, k and q as they enter the dot product.
  std::vector<std::vector<double>> key_mean;   // [G] of [D]: mu
  std::vector<linalg::Matrix> key_covariance;  // [G] of [D, D]: C_K, centred
  std::vector<linalg::Matrix> query_gram;      // [G] of [D, D]: C_Q, sum over the group's heads
  // The same, token t weighted by w_t of the head; unless kNone.
  std::vector<std::vector<double>> weighted_key_mean;
  std::vector<linalg::Matrix> weighted_key_covariance;
  std::vector<linalg::Matrix> weighted_query_gram;  // query i weighted by its sum of w_it; kOutput
};

}  // namespace kvc::factorize
