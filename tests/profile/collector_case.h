#pragma once
// Made-up windows at a layer for the collectors of curves, and attention by its definition in
// double precision.

#include <cmath>
#include <functional>
#include <vector>

#include "core/cache/profile_file.h"
#include "core/checkpoint/model_config.h"
#include "model/decoder.h"
#include "profile/output_error.h"
#include "profile/profile_model.h"

namespace kvc::profile::testing {

inline constexpr int64_t kPoints = kCurveIntervals + 1;
inline constexpr int64_t kHeads = 4, kKvHeads = 2, kWidth = 4, kModelWidth = 7;
inline constexpr int64_t kShare = kHeads / kKvHeads;  // query heads of a kv head

inline ModelConfig TinyConfig() {
  ModelConfig config;
  config.num_layers = 2;
  config.num_heads = kHeads;
  config.num_kv_heads = kKvHeads;
  config.head_width = kWidth;
  config.model_width = kModelWidth;
  config.has_rope = false;
  return config;
}

// Two sinks, four evictable tokens, a window of three, two tokens of the horizon.
inline ProfileOptions TinyOptions() {
  ProfileOptions options;
  options.sinks = 2;
  options.window = 3;
  options.context = 9;
  options.horizon = 2;
  return options;
}

using Row = std::vector<double>;
using Rows = std::vector<Row>;

// The rows of x [n, D].
inline Rows RowsOfTensor(const torch::Tensor& x) {
  const torch::Tensor dense = x.contiguous();
  const float* data = dense.data_ptr<float>();
  Rows rows;
  for (int64_t i = 0; i < dense.size(0); ++i, data += dense.size(1)) {
    rows.emplace_back(data, data + dense.size(1));
  }
  return rows;
}

// A window as the collectors take it, and the same numbers for the slow version.
struct TestWindow {
  model::LayerTaps taps;
  torch::Tensor energy;            // [T], double
  std::vector<Rows> queries;       // [H]
  std::vector<Rows> keys, values;  // [G]
  [[nodiscard]] double Energy(int64_t t) const { return energy.data_ptr<double>()[t]; }
};

inline TestWindow RandomWindow(const ProfileOptions& options) {
  const int64_t length = options.context + options.horizon;
  TestWindow window;
  window.taps.q = torch::randn({1, kHeads, length, kWidth}) * 2;
  window.taps.q_pre_rope = window.taps.q;
  window.taps.k = torch::randn({1, kKvHeads, length, kWidth}) * 2;
  window.taps.v = torch::randn({1, kKvHeads, length, kWidth});
  window.energy = RowEnergies(torch::randn({length, kModelWidth}) * 3);
  for (int64_t h = 0; h < kHeads; ++h) window.queries.push_back(RowsOfTensor(window.taps.q[0][h]));
  for (int64_t g = 0; g < kKvHeads; ++g) {
    window.keys.push_back(RowsOfTensor(window.taps.k[0][g]));
    window.values.push_back(RowsOfTensor(window.taps.v[0][g]));
  }
  return window;
}

// A cached token of a kv head; none of it is there when `present` is false.
struct CachedRow {
  bool present = true;
  Row key, value;
};
// Returns the rows of a kv head as they are.
inline std::vector<CachedRow> RowsOf(const TestWindow& window, int64_t kv_head) {
  std::vector<CachedRow> rows;
  for (size_t j = 0; j < window.keys[kv_head].size(); ++j) {
    rows.push_back({true, window.keys[kv_head][j], window.values[kv_head][j]});
  }
  return rows;
}

// Returns the attention [t + 1] of head h's query at position t to the rows up to it.
inline Row Attention(const TestWindow& window,
                     int64_t h,
                     int64_t t,
                     const std::vector<CachedRow>& rows) {
  const Row& query = window.queries[h][t];
  Row weights;
  double total = 0.0;
  for (int64_t j = 0; j <= t; ++j) {
    double logit = 0.0;
    for (int64_t d = 0; d < kWidth; ++d) logit += query[d] * rows[j].key[d];
    weights.push_back(rows[j].present ? std::exp(logit / std::sqrt(double(kWidth))) : 0.0);
    total += weights.back();
  }
  for (double& weight : weights) weight /= total;
  return weights;
}

inline Row Output(const TestWindow& window,
                  int64_t h,
                  int64_t t,
                  const std::vector<CachedRow>& rows) {
  const Row weights = Attention(window, h, t, rows);
  Row output(kWidth, 0.0);
  for (int64_t j = 0; j <= t; ++j) {
    for (int64_t d = 0; d < kWidth; ++d) output[d] += weights[j] * rows[j].value[d];
  }
  return output;
}

// Returns |x W_O^hT| of x [D]; `o` [E, H*D].
inline double ProjectedNorm(const Rows& o, int64_t h, const Row& x) {
  double sum = 0.0;
  for (int64_t e = 0; e < kModelWidth; ++e) {
    double dot = 0.0;
    for (int64_t d = 0; d < kWidth; ++d) dot += o[e][h * kWidth + d] * x[d];
    sum += dot * dot;
  }
  return std::sqrt(sum);
}

// Returns the squared change of the output of head h at position t, after the projection.
inline double Change(const TestWindow& window,
                     const Rows& o,
                     int64_t h,
                     int64_t t,
                     const std::vector<CachedRow>& before,
                     const std::vector<CachedRow>& after) {
  Row change = Output(window, h, t, after);
  const Row full = Output(window, h, t, before);
  for (int64_t d = 0; d < kWidth; ++d) change[d] -= full[d];
  const double norm = ProjectedNorm(o, h, change);
  return norm * norm;
}

// Returns the error of a kv head over the horizon when its rows become `after`.
inline double SlowError(const TestWindow& window,
                        const Rows& o,
                        int64_t kv_head,
                        const ProfileOptions& options,
                        const std::vector<CachedRow>& after) {
  const std::vector<CachedRow> before = RowsOf(window, kv_head);
  double error = 0.0;
  for (int64_t h = kv_head * kShare; h < (kv_head + 1) * kShare; ++h) {
    for (int64_t t = options.context; t < options.context + options.horizon; ++t) {
      error += Change(window, o, h, t, before, after) / window.Energy(t);
    }
  }
  return error / double(options.horizon);
}

}  // namespace kvc::profile::testing
