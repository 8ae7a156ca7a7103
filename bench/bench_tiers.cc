// Attention of a decode step over mixed tiers against a dense cache of equal bytes: six eighths of
// the bytes at full width, one at a quarter of it, one at an eighth, so that there are 2.25 times
// as many tokens. At most 1.10 times the dense cache's time is promised on a GPU; on the CPU every
// token costs a softmax besides its bytes.
//   bench_tiers [--benchmark_filter=...]
// KVC_BENCH_THREADS sets the number of threads (default: one per core).

#include <deque>
#include <vector>

#include <benchmark/benchmark.h>

#include "bench/support/kernel_main.h"
#include "bench/support/pool.h"
#include "bench/support/timing.h"
#include "core/base/row_format.h"
#include "kernels/attention.h"

namespace {

using kvc::RowFormat;
using kvc::bench::Heads;
using kvc::bench::kColdBytes;
using kvc::bench::kLarge;
using kvc::bench::kSmall;
using kvc::kernels::DecodeHead;
using kvc::kernels::Segment;

// Rows of `width` dimensions in `bytes` bytes of keys and as many of values.
Segment MakeSegment(
    const char* keys, const char* values, int64_t bytes, int64_t width, const RowFormat& format) {
  const int64_t stride = kvc::RowBytes(format, width);
  const int64_t rows = bytes / stride;
  Segment segment;
  segment.keys = {keys, format, rows, width, stride};
  segment.values = {values, format, rows, width, stride};
  return segment;
}

// Several layers' heads over the same memory, dense or in tiers.
class Problem {
 public:
  Problem(Heads heads, const RowFormat& format, int64_t rows, bool tiers)
      : queries_(static_cast<size_t>(heads.query_heads * heads.width), 0.01F),
        outputs_(queries_.size()) {
    const int64_t bytes = rows * kvc::RowBytes(format, heads.width);  // of a head's keys
    const int64_t layers = kColdBytes / (2 * heads.kv_heads * bytes) + 1;
    memory_.assign(static_cast<size_t>(layers * 2 * heads.kv_heads * bytes), 0);
    const char* next = memory_.data();
    const int64_t group = heads.query_heads / heads.kv_heads;
    for (int64_t l = 0; l < layers; ++l) {
      std::vector<DecodeHead>& layer = layers_.emplace_back();
      for (int64_t g = 0; g < heads.kv_heads; ++g, next += 2 * bytes) {
        DecodeHead& head = layer.emplace_back();
        const int64_t eighth = bytes / 8;
        std::vector<Segment>& segments = segments_.emplace_back();
        const auto add = [&](int64_t from, int64_t count, int64_t width) {
          segments.push_back(MakeSegment(next + from * eighth, next + bytes + from * eighth,
                                         count * eighth, width, format));
        };
        if (tiers) {
          add(0, 6, heads.width);
          add(6, 1, heads.width / 4);
          add(7, 1, heads.width / 8);
        } else {
          add(0, 8, heads.width);
        }
        head.segments = segments;
        const int64_t first = g * group * heads.width;
        head.queries = {queries_.data() + first, group, heads.width};
        head.outputs = {outputs_.data() + first, group, heads.width};
      }
    }
  }

  void Step() {
    kvc::kernels::DecodeAttention(layers_[next_], 0.125F, kvc::bench::Pool());
    next_ = (next_ + 1) % layers_.size();
  }

 private:
  std::vector<char> memory_;
  std::vector<float> queries_, outputs_;
  std::deque<std::vector<Segment>> segments_;  // of each head
  std::vector<std::vector<DecodeHead>> layers_;
  size_t next_ = 0;
};

void Tiers(benchmark::State& state, Heads heads, const RowFormat& format) {
  Problem dense(heads, format, state.range(0), false);
  Problem tiers(heads, format, state.range(0), true);
  kvc::bench::BestTime dense_time;
  kvc::bench::BestTime tiers_time;
  // Both run in turns, so that the machine's other work affects both.
  for (auto _ : state) {
    dense_time.Run([&] { dense.Step(); });
    tiers_time.Run([&] { tiers.Step(); });
  }
  state.counters["dense_us"] = dense_time.seconds() * 1e6;
  state.counters["tiers_us"] = tiers_time.seconds() * 1e6;
  state.counters["ratio"] = tiers_time.seconds() / dense_time.seconds();
}

void Rows(benchmark::internal::Benchmark* bench) {
  bench->ArgName("rows")->UseRealTime()->Unit(benchmark::kMicrosecond)->Arg(512)->Arg(4096);
}

BENCHMARK_CAPTURE(Tiers, small_f32, kSmall, kvc::kRowsF32)->Apply(Rows);
BENCHMARK_CAPTURE(Tiers, large_f32, kLarge, kvc::kRowsF32)->Apply(Rows);
BENCHMARK_CAPTURE(Tiers, large_f16, kLarge, kvc::kRowsF16)->Apply(Rows);

}  // namespace

int main(int argc, char** argv) { return kvc::bench::RunBenchmarks(argc, argv); }
