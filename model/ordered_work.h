#pragma once
// Work that is produced on several threads and consumed in order on one.

#include <cstdint>
#include <functional>

namespace kvc::model {

// Calls produce(i) for i = 0 .. count-1 on `workers` threads and consume(i) in order on the calling
// thread, each after its produce(i). At most workers + 1 items are begun and not yet consumed. With
// one worker everything runs on the calling thread. The first exception of either stops the rest
// and is rethrown.
void RunOrdered(int64_t count,
                int workers,
                const std::function<void(int64_t)>& produce,
                const std::function<void(int64_t)>& consume);

}  // namespace kvc::model
