// Time to score the tokens of one kv head at the end of a prompt, one thread.
//   build/bin/bench_scorers
#include <cmath>

#include <benchmark/benchmark.h>

#include "core/base/rng.h"
#include "scorers/scorer.h"
#include "scorers/tier_loss.h"

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

// M of an output matrix that keeps every direction.
std::vector<float> Identity() {
  std::vector<float> gram(kWidth * kWidth);
  for (int64_t d = 0; d < kWidth; ++d) gram[d * kWidth + d] = 1.0F;
  return gram;
}

void BM_Score(benchmark::State& state, const kvc::ScorerSpec& spec) {
  const int64_t tokens = state.range(0);
  const std::vector<float> rows = RandomFloats(tokens * kWidth);
  std::vector<double> frequencies;
  for (int64_t d = 0; d < kWidth / 2; ++d) frequencies.push_back(std::pow(1e4, -d / 32.0));
  kvc::scorers::HeadInput head;
  head.keys = {rows.data(), tokens, kWidth};
  head.values = head.keys;
  const std::vector<float> gram = Identity();
  for (int64_t h = 0; h < kHeads; ++h) {
    head.output_grams.emplace_back(gram.data(), kWidth, kWidth);
    head.queries.push_back({rows.data() + h * kWidth, kWindow, kWidth});
    head.prompt_queries.push_back(head.keys);
  }
  head.rope_frequencies = frequencies;
  head.scale = 0.125;
  head.rounding = kvc::kernels::InputRounding::kToBF16;
  const auto scorer = kvc::scorers::Scorer::Create(spec);
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
BENCHMARK_CAPTURE(BM_Score, output_error, kvc::ScorerKind::kOutputError)
    ->Arg(768)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_Score,
                  output_error_prompt,
                  kvc::ScorerSpec(kvc::ScorerKind::kOutputError, {.prompt = 1024}))
    ->Arg(768)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond);

// Losses of tiers that keep rows in `kinds` ways: keys and values alike, or each pair of ways.
void BM_TierLosses(benchmark::State& state, int64_t kinds, bool apart) {
  const int64_t tokens = state.range(0);
  const std::vector<float> rows = RandomFloats(tokens * kWidth);
  const std::vector<float> gram = Identity();
  kvc::scorers::HeadInput head;
  head.keys = {rows.data(), tokens, kWidth};
  head.values = head.keys;
  for (int64_t h = 0; h < kHeads; ++h) {
    head.output_grams.emplace_back(gram.data(), kWidth, kWidth);
    head.queries.push_back({rows.data() + h * kWidth, kWindow, kWidth});
  }
  head.scale = 0.125;
  head.rounding = kvc::kernels::InputRounding::kToBF16;
  std::vector<std::vector<float>> kept(static_cast<size_t>(kinds), rows);
  for (size_t t = 0; t < kept.size(); ++t) {
    for (float& x : kept[t]) x *= 1.0F - 0.1F / static_cast<float>(1 + t);
  }
  std::vector<kvc::scorers::TierRows> tiers;
  for (const auto& keys : kept) {
    for (const auto& values : kept) {
      if (!apart && &keys != &values) continue;
      tiers.push_back({{keys.data(), tokens, kWidth}, {values.data(), tokens, kWidth}});
    }
  }
  const int64_t columns = 1 + std::ssize(tiers);
  std::vector<double> losses(static_cast<size_t>(tokens * columns));
  for (auto _ : state) {
    kvc::scorers::TierLosses(head, tiers, {}, {losses.data(), tokens, columns});
    benchmark::DoNotOptimize(losses.data());
  }
}
BENCHMARK_CAPTURE(BM_TierLosses, tied, 5, false)
    ->Arg(768)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(BM_TierLosses, apart, 4, true)
    ->Arg(768)
    ->Arg(4096)
    ->Unit(benchmark::kMillisecond);

}  // namespace
BENCHMARK_MAIN();
