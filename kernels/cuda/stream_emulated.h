#pragma once
// How launches and other work enter an emulated stream. Streams are deferred: what is put into one
// runs when somebody waits for it (runtime.h), so that a result which the host reads too early is
// not there.

#include <cstdint>
#include <functional>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {
// `work` runs on the host when its turn comes, as often as a graph that captured it is replayed.
void EnqueueWork(StreamHandle stream, std::function<void()> work);
void EnqueueKernel(const LaunchShape& shape, StreamHandle stream, std::function<void()> kernel);

// For tests of what a failure leaves behind. Launches, copies, fills and allocations are counted
// from here on, and number `number` of them throws kDevice instead of doing anything; -1: none.
void FailCall(int64_t number);
// Calls since the last FailCall.
[[nodiscard]] int64_t CountCalls();
}  // namespace kvc::cuda
