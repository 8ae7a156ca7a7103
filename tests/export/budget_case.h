#pragma once
// A small cache's geometry, random curves and a request, for tests of the planner.

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "core/base/rng.h"
#include "export/budget/budget_plan.h"

namespace kvc::budget {

inline constexpr int64_t kLayers = 3;
inline constexpr int64_t kKvHeads = 4;
inline constexpr int64_t kHeadWidth = 16;

// `heads_of_group` kv heads share a key of width `key_width`; more than one: a latent.
inline CacheSpec Geometry(int64_t heads_of_group = 1,
                          int64_t key_width = kHeadWidth,
                          DType dtype = DType::kF16) {
  CacheSpec spec;
  spec.key_format = RowFormatOf(dtype);
  spec.value_format = RowFormatOf(dtype);
  spec.original_dtype = dtype;
  spec.num_heads = 2 * kKvHeads;
  spec.num_kv_heads = kKvHeads;
  spec.head_width = kHeadWidth;
  for (int64_t l = 0; l < kLayers; ++l) {
    std::vector<CacheGroup> groups;
    for (int64_t first = 0; first < kKvHeads; first += heads_of_group) {
      CacheGroup group;
      group.key_width = key_width + 2 * l;  // ragged over the layers
      group.value_width = kHeadWidth;
      for (int64_t i = 0; i < heads_of_group; ++i) group.heads.push_back(first + i);
      group.keeps_positions = heads_of_group > 1;
      groups.push_back(group);
    }
    spec.layers.push_back(groups);
  }
  return spec;
}

// Curves that fall at different rates, with the wiggles that make hulls necessary.
inline ProfileData Profile(uint64_t seed) {
  Rng rng(seed);
  ProfileData profile;
  profile.num_layers = kLayers;
  profile.num_kv_heads = kKvHeads;
  std::vector<float>& curves = profile.curves[ScorerKind::kSnapKv];
  double total = 0.0;
  for (int64_t head = 0; head < kLayers * kKvHeads; ++head) {
    const double rate = 0.5 + 8.0 * rng.NextDouble();
    double last = 1.0;
    for (int64_t i = 0; i <= kCurveIntervals; ++i) {
      const double share = static_cast<double>(i) / kCurveIntervals;
      const double value = (1.0 - share) * std::exp(-rate * share) * (0.8 + 0.2 * rng.NextDouble());
      last = std::min(last, value);
      curves.push_back(static_cast<float>(last));
    }
    profile.importance.push_back(static_cast<float>(rng.NextDouble()));
    total += static_cast<double>(profile.importance.back());
  }
  for (float& value : profile.importance) value = static_cast<float>(double{value} / total);
  return profile;
}

inline PlanRequest Request(const std::string& budget,
                           Method method,
                           const ProfileData* profile = nullptr) {
  PlanRequest request;
  request.budget = ParseBudget(budget, "--budget");
  request.policy.method = method;
  request.profile = profile;
  return request;
}

}  // namespace kvc::budget
