#pragma once
// Bases of a cache's coordinates: random directions and lengths, and their inverses.

#include <cmath>
#include <memory>
#include <vector>

#include "core/base/rng.h"
#include "core/cache/cache_bases.h"

namespace kvc::testing {

// forward = Q diag(s) and back = Q diag(1/s) of one head in the upper left corner of [full, full].
inline void AddRandomBasis(
    Rng& rng, int64_t width, int64_t full, std::vector<float>& forward, std::vector<float>& back) {
  std::vector<std::vector<double>> columns;
  for (int64_t c = 0; c < width; ++c) {
    std::vector<double> column(static_cast<size_t>(width));
    for (double& x : column) x = rng.NextNormal();
    for (const auto& other : columns) {
      double dot = 0.0;
      for (int64_t d = 0; d < width; ++d) dot += column[d] * other[d];
      for (int64_t d = 0; d < width; ++d) column[d] -= dot * other[d];
    }
    double norm = 0.0;
    for (const double x : column) norm += x * x;
    for (double& x : column) x /= std::sqrt(norm);
    columns.push_back(column);
  }
  std::vector<double> lengths;
  for (int64_t c = 0; c < width; ++c) lengths.push_back(0.5 + rng.NextDouble());
  for (int64_t d = 0; d < full; ++d) {
    for (int64_t c = 0; c < full; ++c) {
      const bool inside = d < width && c < width;
      const double x = inside ? columns[c][d] : static_cast<double>(c == d);
      forward.push_back(static_cast<float>(inside ? x * lengths[c] : x));
      back.push_back(static_cast<float>(inside ? x / lengths[c] : x));
    }
  }
}

inline void AddRandomMean(Rng& rng, int64_t width, int64_t full, std::vector<float>& mean) {
  for (int64_t d = 0; d < full; ++d) {
    mean.push_back(d < width ? static_cast<float>(0.02 * rng.NextNormal()) : 0.0F);
  }
}

// Errors that fall with the column and with each bit, of columns in use.
inline void AddErrors(
    Rng& rng, int64_t width, int64_t full, double reach, std::vector<float>& errors) {
  std::vector<double> unit;
  for (int64_t d = 0; d < full; ++d) {
    const bool inside = d < width;
    unit.push_back(inside ? reach * (0.5 + rng.NextDouble()) / static_cast<double>(1 + d) : 0.0);
  }
  for (const double bits : {8.0, 4.0, 2.0, 0.0}) {
    for (const double error : unit) {
      errors.push_back(static_cast<float>(error * std::pow(4.0, -bits)));
    }
  }
}

// Steps of the three formats of one head whose coordinates are `reach` or so at most.
inline void AddSteps(Rng& rng, int64_t full, double reach, std::vector<float>& steps) {
  for (const RowFormat& format : kStepFormats) {
    const double codes = std::pow(2.0, static_cast<double>(ElementBits(format)));
    for (int64_t d = 0; d < full; ++d) {
      steps.push_back(static_cast<float>((1.0 + rng.NextDouble()) * reach / codes));
    }
  }
}

// With `latents` those of latents too.
inline std::shared_ptr<const std::vector<LayerBases>> RandomBases(const CacheSpec& spec,
                                                                  uint64_t seed,
                                                                  bool latents = false) {
  Rng rng(seed);
  Rng step_rng(seed + 1);
  std::vector<LayerBases> all;
  for (const auto& groups : spec.layers) {
    LayerBases& bases = all.emplace_back();
    bases.num_kv_heads = spec.num_kv_heads;
    bases.num_key_groups = std::ssize(groups);
    bases.value_width = groups[0].value_width;
    const auto has_keys = [&](const CacheGroup& group) {
      return latents || !group.keeps_positions;
    };
    for (const CacheGroup& group : groups) {
      if (has_keys(group)) bases.key_width = std::max(bases.key_width, group.key_width);
    }
    for (const CacheGroup& group : groups) {
      for (size_t i = 0; i < group.heads.size(); ++i) {
        AddRandomBasis(rng, group.value_width, bases.value_width, bases.value, bases.output);
        AddRandomMean(rng, group.value_width, bases.value_width, bases.value_mean);
        AddSteps(step_rng, bases.value_width, 2.0, bases.value_steps);
        AddErrors(step_rng, group.value_width, bases.value_width, 2.0, bases.value_errors);
        if (i > 0 || !has_keys(group)) continue;
        AddRandomBasis(rng, group.key_width, bases.key_width, bases.key, bases.query);
        AddRandomMean(rng, group.key_width, bases.key_width, bases.key_mean);
        AddSteps(step_rng, bases.key_width, 8.0, bases.key_steps);
        AddErrors(step_rng, group.key_width, bases.key_width, 8.0, bases.key_errors);
      }
    }
    SpreadOverLayer(bases);
  }
  return std::make_shared<const std::vector<LayerBases>>(std::move(all));
}

}  // namespace kvc::testing
