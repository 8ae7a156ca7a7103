// y = x W^T on the shapes of SmolLM2-135M (E = 576, mlp 1536, vocabulary 49152) and of a 7B model.
//   bench_matmul [--benchmark_filter=...]
// Few rows: GB/s of W as it is stored and its share of the read bandwidth that this program
// measures. The weights of one matrix rotate through more memory than the last-level cache holds,
// as the layers of a model do. Many rows: GFLOP/s.

#include <vector>

#include <benchmark/benchmark.h>

#include "bench/support/kernel_main.h"
#include "bench/support/pool.h"
#include "bench/support/timing.h"
#include "core/base/rng.h"
#include "kernels/matmul.h"

namespace {

using kvc::DType;
using kvc::bench::MemorySpeed;
using kvc::bench::Pool;

constexpr int64_t kColdBytes = int64_t{192} << 20;

// Weight matrices [out, in] of one buffer, as many as fill `kColdBytes`.
struct Weights {
  std::vector<char> bytes;
  std::vector<kvc::kernels::PackedWeight> matrices;
};

Weights MakeWeights(int64_t out, int64_t in, DType dtype) {
  Weights weights;
  const int64_t matrix_bytes = out * in * kvc::DTypeBytes(dtype);
  const int64_t count = std::max<int64_t>(1, kColdBytes / matrix_bytes);
  weights.bytes.resize(static_cast<size_t>(count * matrix_bytes));
  std::vector<float> numbers(static_cast<size_t>(out * in));
  kvc::Rng rng(1);
  for (float& number : numbers) {
    number = static_cast<float>(rng.NextDouble() - 0.5);
  }
  for (int64_t i = 0; i < count; ++i) {
    char* data = weights.bytes.data() + i * matrix_bytes;
    kvc::ConvertFromFloat(numbers.data(), out * in, dtype, data);
    weights.matrices.emplace_back(kvc::kernels::WeightView{data, dtype, out, in}, Pool());
  }
  return weights;
}

void Apply(benchmark::State& state, DType dtype) {
  const int64_t rows = state.range(0);
  const int64_t out = state.range(1);
  const int64_t in = state.range(2);
  const Weights weights = MakeWeights(out, in, dtype);
  std::vector<float> x(static_cast<size_t>(rows * in), 0.5F);
  std::vector<float> y(static_cast<size_t>(rows * out));
  size_t next = 0;
  kvc::bench::BestTime best;
  for (auto _ : state) {
    best.Run([&] {
      weights.matrices[next].Apply({x.data(), rows, in}, nullptr, {y.data(), rows, out}, Pool());
    });
    next = (next + 1) % weights.matrices.size();
  }
  const auto bytes = static_cast<double>(out * in * kvc::DTypeBytes(dtype));
  const double speed = bytes / best.seconds();
  state.counters["best_us"] = best.seconds() * 1e6;
  state.counters["GB/s"] = speed * 1e-9;
  state.counters["of_read_%"] = 100.0 * speed / MemorySpeed();
  state.counters["GFLOP/s"] = 2e-9 * static_cast<double>(rows * out * in) / best.seconds();
}

void Shapes(benchmark::internal::Benchmark* bench, const std::vector<int64_t>& row_counts) {
  bench->ArgNames({"T", "out", "in"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  const std::vector<std::pair<int64_t, int64_t>> shapes = {
      {576, 576}, {192, 576}, {1536, 576}, {576, 1536}, {49152, 576}, {14336, 4096}};
  for (const int64_t rows : row_counts) {
    for (const auto& [out, in] : shapes) {
      bench->Args({rows, out, in});
    }
  }
}
void FewRows(benchmark::internal::Benchmark* bench) { Shapes(bench, {1, 4, 8}); }
void ManyRows(benchmark::internal::Benchmark* bench) { Shapes(bench, {16, 64, 512}); }

BENCHMARK_CAPTURE(Apply, f32, DType::kF32)->Apply(FewRows)->Apply(ManyRows);
BENCHMARK_CAPTURE(Apply, bf16, DType::kBF16)->Apply(FewRows)->Apply(ManyRows);
BENCHMARK_CAPTURE(Apply, f16, DType::kF16)->Apply(FewRows);

}  // namespace

int main(int argc, char** argv) { return kvc::bench::RunBenchmarks(argc, argv); }
