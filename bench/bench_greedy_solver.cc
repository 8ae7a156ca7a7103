// Time to spread a budget over 16,384 tokens with four tiers each: one curve for a token.
//   build/bin/bench_greedy_solver
#include <benchmark/benchmark.h>

#include "core/base/rng.h"
#include "solver/greedy_solver.h"

namespace {

using kvc::solver::Curve;

// Falling losses with jitter, so that some points lie off the hull.
std::vector<Curve> MakeCurves(int64_t num_curves, int64_t num_points) {
  kvc::Rng rng(7);
  std::vector<Curve> curves(static_cast<size_t>(num_curves));
  for (Curve& curve : curves) {
    const double importance = rng.NextDouble();
    for (int64_t i = 0; i < num_points; ++i) {
      const double share = static_cast<double>(i) / static_cast<double>(num_points - 1);
      curve.push_back({128.0 * share, importance * (1.0 - share) * (0.5 + rng.NextDouble())});
    }
  }
  return curves;
}

void BM_SolveGreedy(benchmark::State& state) {
  const std::vector<Curve> curves = MakeCurves(state.range(0), state.range(1));
  const double budget = 0.25 * 128.0 * static_cast<double>(state.range(0));
  kvc::solver::Allocation result;
  for (auto _ : state) {
    result = kvc::solver::SolveGreedy(curves, budget);
    benchmark::DoNotOptimize(result.objective);
  }
  state.counters["gap"] = result.objective - result.bound;
  state.counters["objective"] = result.objective;
}
BENCHMARK(BM_SolveGreedy)
    ->Args({16384, 4})   // tokens x tiers: at most 5 ms promised
    ->Args({131072, 4})  // a long prompt
    ->Args({270, 129})   // heads x utility curve of a 30-layer model
    ->Unit(benchmark::kMillisecond);

}  // namespace
BENCHMARK_MAIN();
