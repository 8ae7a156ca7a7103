#pragma once
// Calibration statistics of one layer's keys and queries: second moments of the key width, never of
// the model width. factorize/key_collector.h collects them.

#include <cstdint>
#include <vector>

#include "linalg/matrix.h"

namespace kvc::factorize {

// Weight w_it of an error in the logit of query i and key t (factorize/error_weights.h). Its sum
// over queries and heads is w_t, the weight of token t.
enum class ErrorWeights {
  kNone,       // every token alike
  kAttention,  // how much the error moves the attention
  kOutput,     // what it does to the attention's output
};

struct KeyStatistics {
  // Moments for each key group n, m = heads in the group x D. k is the raw key x W_K^T, before
  // bias, norm and rotation.
  std::vector<linalg::Matrix> gram;  // [n] of [m, m]: mean of k^T k
  std::vector<linalg::Matrix>
      weighted_gram;  // [n] the same with token t weighted by w_t of the group; kAttention
  // Moments for each kv head under kOutput, with token t weighted by w_t of that head.
  std::vector<linalg::Matrix> head_gram;  // [G] of [m, m]: mean of its group's k^T k
  // Moments of the queries that the head's keys meet, z_it = q_i turned back by the key's position.
  std::vector<linalg::Matrix> met_gram;  // [G] of [D, D]: sum of w_it z_it^T z_it per token
  // lambda: mean energy of a group's query heads in each key dimension, summed over the query
  // heads. With rotation it is the mean over the dimension's pair (j, j + D/2).
  std::vector<double> query_energy;  // [G*D]
  // Moments for each kv head, with k and q as they enter the dot product.
  std::vector<std::vector<double>> key_mean;   // [G] of [D]: mu
  std::vector<linalg::Matrix> key_covariance;  // [G] of [D, D]: C_K, centred
  std::vector<linalg::Matrix> query_gram;      // [G] of [D, D]: C_Q, sum over the group's heads
  // Moments with token t weighted by w_t of the head; present unless kNone.
  std::vector<std::vector<double>> weighted_key_mean;
  std::vector<linalg::Matrix> weighted_key_covariance;
  std::vector<linalg::Matrix> weighted_query_gram;  // query i weighted by its sum of w_it; kOutput
};

}  // namespace kvc::factorize
