// Attention over a cache, on the shapes of SmolLM2-135M (9/3 heads of 64) and of a 7B model (32/8
// heads of 128).
//   bench_attention [--benchmark_filter=...]
// Decode: GB/s of the cache that one step reads, and its share of the read bandwidth that this
// program measures; layers rotate through more memory than the last-level cache holds. Prefill:
// GFLOP/s of the two products, counting what causality leaves. Rates are those of the shortest run.
// KVC_BENCH_THREADS sets the number of threads (default: one per core).

#include <vector>

#include <benchmark/benchmark.h>

#include "bench/support/attention_problem.h"
#include "bench/support/kernel_main.h"
#include "bench/support/pool.h"
#include "bench/support/timing.h"
#include "kernels/attention.h"

namespace {

using kvc::RowFormat;
using kvc::bench::Heads;
using kvc::bench::kColdBytes;
using kvc::bench::kLarge;
using kvc::bench::kSmall;
using kvc::bench::MemorySpeed;
using kvc::bench::Pool;

// A step over several layers' caches, one layer after the other.
void DecodeBody(benchmark::State& state,
                Heads heads,
                const RowFormat& format,
                int64_t key_width,
                bool rebuild) {
  const kvc::bench::AttentionShape shape{heads.query_heads, heads.kv_heads, heads.width, key_width,
                                         state.range(0),    format,         rebuild};
  kvc::bench::AttentionProblem problem(shape, kColdBytes);
  kvc::bench::BestTime best;
  for (auto _ : state) {
    best.Run([&] { problem.Step(Pool()); });
  }
  const double speed = static_cast<double>(shape.LayerBytes()) / best.seconds();
  state.counters["best_us"] = best.seconds() * 1e6;
  state.counters["GB/s"] = speed * 1e-9;
  state.counters["of_read_%"] = 100.0 * speed / MemorySpeed();
}

void Decode(benchmark::State& state, Heads heads, const RowFormat& format) {
  DecodeBody(state, heads, format, heads.width, false);
}
void DecodeThin(benchmark::State& state, Heads heads, const RowFormat& format, int64_t key_width) {
  DecodeBody(state, heads, format, key_width, false);
}
void DecodeRebuild(benchmark::State& state, Heads heads, const RowFormat& format, int64_t rank) {
  DecodeBody(state, heads, format, rank, true);
}

void PrefillBody(benchmark::State& state, Heads heads, int64_t rank) {
  const int64_t tokens = state.range(0);
  const int64_t first = state.range(1);
  const int64_t rows = first + tokens;
  const int64_t group = heads.query_heads / heads.kv_heads;
  const int64_t key_width = rank > 0 ? rank : heads.width;
  const std::vector<char> keys =
      kvc::bench::CheapRows(heads.kv_heads * rows, key_width, kvc::kRowsF32);
  const std::vector<char> values =
      kvc::bench::CheapRows(heads.kv_heads * rows, heads.width, kvc::kRowsF32);
  std::vector<float> queries(static_cast<size_t>(heads.query_heads * tokens * heads.width), 0.01F);
  std::vector<float> outputs(queries.size());
  const kvc::bench::RebuildTables tables(heads.width, std::max<int64_t>(rank, 1), rows);
  std::vector<kvc::kernels::PrefillHead> work;
  for (int64_t g = 0; g < heads.kv_heads; ++g) {
    kvc::kernels::PrefillHead head;
    head.keys = {keys.data() + g * rows * key_width * 4, kvc::kRowsF32, rows, key_width,
                 key_width * 4};
    head.values = {values.data() + g * rows * heads.width * 4, kvc::kRowsF32, rows, heads.width,
                   heads.width * 4};
    head.rebuild = rank > 0 ? &tables.rebuild() : nullptr;
    const int64_t stride = heads.query_heads * heads.width;
    for (int64_t h = g * group; h < (g + 1) * group; ++h) {
      head.queries.emplace_back(queries.data() + h * heads.width, tokens, heads.width, stride);
      head.outputs.emplace_back(outputs.data() + h * heads.width, tokens, heads.width, stride);
    }
    work.push_back(head);
  }
  kvc::bench::BestTime best;
  for (auto _ : state) {
    best.Run([&] { kvc::kernels::PrefillAttention(work, first, 0.125F, Pool()); });
  }
  const double pairs = static_cast<double>(tokens * first + tokens * (tokens + 1) / 2);
  state.counters["best_us"] = best.seconds() * 1e6;
  state.counters["GFLOP/s"] =
      4e-9 * pairs * static_cast<double>(heads.query_heads * heads.width) / best.seconds();
}

void Prefill(benchmark::State& state, Heads heads, int64_t rank) {
  PrefillBody(state, heads, rank);
}

void Lengths(benchmark::internal::Benchmark* bench) {
  bench->ArgName("rows")->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int64_t rows : {512, 4096, 32768}) {
    bench->Arg(rows);
  }
}
void Chunks(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"T", "first"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  bench->Args({512, 0})->Args({512, 3584})->Args({64, 448});
}

BENCHMARK_CAPTURE(Decode, small_f32, kSmall, kvc::kRowsF32)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, small_bf16, kSmall, kvc::kRowsBF16)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, large_f32, kLarge, kvc::kRowsF32)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, large_f16, kLarge, kvc::kRowsF16)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, large_bf16, kLarge, kvc::kRowsBF16)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, small_int8, kSmall, kvc::kRowsInt8)->Apply(Lengths);
BENCHMARK_CAPTURE(Decode, large_int8, kLarge, kvc::kRowsInt8)->Apply(Lengths);
BENCHMARK_CAPTURE(DecodeThin, large_f16_32, kLarge, kvc::kRowsF16, 32)->Apply(Lengths);
BENCHMARK_CAPTURE(DecodeThin, small_f32_16, kSmall, kvc::kRowsF32, 16)->Apply(Lengths);
BENCHMARK_CAPTURE(DecodeRebuild, small_f32_48, kSmall, kvc::kRowsF32, 48)->Apply(Lengths);
BENCHMARK_CAPTURE(Prefill, small, kSmall, 0)->Apply(Chunks);
BENCHMARK_CAPTURE(Prefill, small_rank48, kSmall, 48)->Apply(Chunks);
BENCHMARK_CAPTURE(Prefill, large, kLarge, 0)->Apply(Chunks);

}  // namespace

int main(int argc, char** argv) { return kvc::bench::RunBenchmarks(argc, argv); }
