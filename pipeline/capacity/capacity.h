#pragma once
// What a model's cache takes at several budgets, how many sequences fit into a memory beside the
// weights, and how fast decoding can be, before anything is converted.
//
// Bytes of a cache are PredictBytes (core/cache/cache_spec.h) of the policy that an export at this
// budget has, so a run allocates exactly them. Speed is a bound: a decode step reads the weights
// once and the cache of every sequence once,
//   tokens/s = batch bandwidth / (step weights + batch allocated bytes of a cache).

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/io/json_fwd.h"
#include "export/budget/budget_plan.h"
#include "pipeline/capacity/capacity_model.h"

namespace kvc::capacity {

struct CapacityRequest {
  int64_t context = 0;  // tokens of a sequence; 0: the model's context
  int64_t batch = 1;
  std::vector<std::string> budgets = {"100%", "50%", "25%", "12.5%", "6.25%"};
  budget::Policy policy;  // at less than everything
  int64_t sinks = 4;
  std::optional<int64_t> window;         // none: budget::WindowOf
  int64_t reference_length = 0;          // 0: what kvc-export takes without a profile
  std::optional<int64_t> memory;         // bytes
  std::optional<double> bandwidth;       // bytes per second
  const ProfileData* profile = nullptr;  // for policies that need one
};

// One budget. Where it cannot be had, `infeasible` says why and the rest is empty.
struct CapacityLine {
  std::string budget;
  std::string infeasible;
  CacheSpec spec;
  CacheBytes bytes;  // of one sequence of `context` tokens
  // The most that a prompt of `context` tokens takes beside the weights: its cache while layers are
  // compressed one after the other (runtime::PeakCacheBytes), the hidden state of every token, and
  // an estimate of one chunk's activations.
  int64_t peak_cache_bytes = 0;
  int64_t peak_prefill_bytes = 0;
  std::optional<int64_t> sequences;         // that fit into the memory; none without one
  std::optional<double> tokens_per_second;  // of the whole batch; none without a bandwidth

  [[nodiscard]] double BytesPerToken(int64_t context) const {
    return static_cast<double>(bytes.allocated) / static_cast<double>(context);
  }
};

struct Capacity {
  CapacityModel model;
  int64_t context = 0;
  int64_t batch = 1;
  std::optional<int64_t> memory = {};
  std::optional<double> bandwidth = {};
  std::vector<CapacityLine> lines = {};  // a bundle's own policy first
};

// Plans every budget. Sequences fit where weights, their caches and the peak of one more prompt,
// less what it keeps, are within the memory. Throws kUsage for a context beyond the model's, a
// batch below 1 and what MakeBudgetPlan refuses, kInfeasible excepted, which becomes a line.
[[nodiscard]] Capacity PlanCapacity(CapacityModel model, const CapacityRequest& request);

[[nodiscard]] Json ToJson(const Capacity& capacity);

}  // namespace kvc::capacity
