#include "bench/support/pool.h"

#include <cstdlib>

#include "bench/support/read_bandwidth.h"
#include "kernels/cpu/simd_targets.h"

namespace kvc::bench {
ThreadPool& Pool() {
  static ThreadPool pool([] {
    const char* threads = std::getenv("KVC_BENCH_THREADS");
    return threads == nullptr ? 0 : std::atoi(threads);
  }());
  return pool;
}

double MemorySpeed() {
  static const double speed = bench::MeasureReadBandwidth(Pool());
  return speed;
}

void PrintMachine(std::ostream& out) {
  out << "threads " << Pool().num_threads() << ", "
      << kernels::SimdTargetName(kernels::SupportedSimdTargets().front()) << ", memory read "
      << MemorySpeed() * 1e-9 << " GB/s\n";
}

}  // namespace kvc::bench
