// Time to give every cached token a tier. One cache group of 16,384 tokens: at most 5 ms promised;
// 256 groups of 16,384 under one lambda: at most 400 ms.
//   build/bin/bench_tier_allocator
#include <cmath>

#include <benchmark/benchmark.h>

#include "core/base/rng.h"
#include "solver/tier_allocator.h"

namespace {

// Losses of the tiers 0, 1/8, 1/4 and 1, spread over decades as attention is.
std::vector<float> MakeLosses(int64_t tokens) {
  kvc::Rng rng(7);
  std::vector<float> losses;
  for (int64_t i = 0; i < tokens; ++i) {
    const double dropped = std::exp(3.0 * rng.NextNormal());
    const double eighth = dropped * 0.8 * std::exp(0.4 * rng.NextNormal());
    const double quarter = eighth * 0.7 * std::exp(0.4 * rng.NextNormal());
    for (const double loss : {dropped, eighth, quarter, 0.0}) {
      losses.push_back(static_cast<float>(loss));
    }
  }
  return losses;
}

void BM_AllocateTiers(benchmark::State& state) {
  const int64_t num_groups = state.range(0);
  const int64_t tokens = state.range(1);
  const std::vector<int64_t> costs = {0, 132, 260, 1028};  // D = 128, f32, with the score
  const std::vector<float> losses = MakeLosses(num_groups * tokens);
  std::vector<kvc::solver::TierGroup> groups;
  for (int64_t g = 0; g < num_groups; ++g) {
    const std::span<const float> all = losses;
    groups.push_back({tokens, all.subspan(g * tokens * 4, tokens * 4), costs});
  }
  const auto budget =
      static_cast<int64_t>(0.25 * 1028.0 * static_cast<double>(num_groups * tokens));
  kvc::solver::TierAllocation result;
  for (auto _ : state) {
    result = kvc::solver::AllocateTiers(groups, budget);
    benchmark::DoNotOptimize(result.objective);
  }
  state.counters["relative_gap"] = (result.objective - result.bound) / result.objective;
}
BENCHMARK(BM_AllocateTiers)
    ->Args({1, 128})
    ->Args({1, 1024})
    ->Args({1, 16384})
    ->Args({1, 131072})
    ->Args({256, 16384})
    ->Unit(benchmark::kMillisecond);

}  // namespace
BENCHMARK_MAIN();
