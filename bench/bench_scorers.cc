// Time to score the tokens of one kv head at the end of a prompt, one thread.
//   build/bin/bench_scorers
#include <cmath>

#include <benchmark/benchmark.h>

#include "core/base/rng.h"
#include "scorers/scorer.h"

namespace {

constexpr int64_t kWidth = 64;
constexpr int64_t kHeads = 3;
constexpr int64_t kWindow = 32;

std::vector<float> RandomFloats(int64_t count) {
  kvc::Rng rng(11);
  std::vector<float> values(static_cast<size_t>(count));
  for (float& value : values) value = static_cast<float>(rng.NextNormal());
  return values;
}

void BM_Score(benchmark::State& state, kvc::ScorerKind kind) {
  const int64_t tokens = state.range(0);
  const std::vector<float> rows = RandomFloats(tokens * kWidth);
  std::vector<double> frequencies;
  for (int64_t d = 0; d < kWidth / 2; ++d) frequencies.push_back(std::pow(1e4, -d / 32.0));
  kvc::scorers::HeadInput head;
  head.keys = {rows.data(), tokens, kWidth};
  head.values = head.keys;
  for (int64_t h = 0; h < kHeads; ++h) {
    head.queries.push_back({rows.data() + h * kWidth, kWindow, kWidth});
    head.prompt_queries.push_back(head.keys);
  }
  head.rope_frequencies = frequencies;
  head.scale = 0.125;
  const auto scorer = kvc::scorers::Scorer::Create(kind);
  std::vector<float> scores(static_cast<size_t>(tokens));
  for (auto _ : state) {
    scorer->Score(head, scores);
    benchmark::DoNotOptimize(scores.data());
  }
}
// snapkv at 8,192 tokens: at most 10 ms promised.
BENCHMARK_CAPTURE(BM_Score, snapkv, kvc::ScorerKind::kSnapKv)
    ->Arg(1024)
    ->Arg(8192)
    ->Arg(32768)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Score, expected_attention, kvc::ScorerKind::kExpectedAttention)
    ->Arg(1024)
    ->Arg(8192)
    ->Arg(32768)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Score, keydiff, kvc::ScorerKind::kKeyDiff)
    ->Arg(8192)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Score, knorm, kvc::ScorerKind::kKnorm)
    ->Arg(8192)
    ->Unit(benchmark::kMillisecond);

}  // namespace
BENCHMARK_MAIN();
