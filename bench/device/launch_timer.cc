#include "bench/device/launch_timer.h"

#include <algorithm>
#include <vector>

namespace kvc::bench {

LaunchTimer::LaunchTimer(int threads)
    : device_(cuda::OpenDevice(threads)), flush_(2 * device_.l2_bytes) {}

Times LaunchTimer::Measure(int64_t repetitions, const std::function<void()>& launch) {
  launch();
  cuda::Synchronize(stream());
  std::vector<double> seconds;
  cuda::Event begin;
  cuda::Event end;
  for (int64_t r = 0; r < repetitions; ++r) {
    cuda::FillZero(flush_.data(), flush_.bytes(), stream());
    begin.Record(stream());
    launch();
    end.Record(stream());
    cuda::Synchronize(stream());
    seconds.push_back(begin.SecondsUntil(end));
  }
  return TimesOf(std::move(seconds));
}

double LaunchTimer::CopyRate() {
  constexpr int64_t kRepetitions = 10;
  const size_t bytes = std::min(16 * device_.l2_bytes, cuda::FreeBytes() / 4);
  const cuda::DeviceBuffer from(bytes);
  const cuda::DeviceBuffer to(bytes);
  cuda::FillZero(from.data(), bytes, stream());
  const Times times =
      Measure(kRepetitions, [&] { cuda::CopyOnDevice(to.data(), from.data(), bytes, stream()); });
  return 2.0 * static_cast<double>(bytes) / times.best;
}

}  // namespace kvc::bench
