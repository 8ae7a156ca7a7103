#pragma once
// How launches enter an emulated stream. Streams are deferred: what is put into one runs when
// somebody waits for it (runtime.h), so that a result which the host reads too early is not there.

#include <functional>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {
void EnqueueKernel(const LaunchShape& shape, StreamHandle stream, std::function<void()> kernel);
}  // namespace kvc::cuda
