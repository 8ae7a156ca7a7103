#pragma once
// Waits for single launches on a CUDA device, so that a kernel that fails can be named (Synchronize
// in runtime.h).

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

// Where WaitsForLaunches (runtime.h), waits for what is in the stream, whose last part is `kernel`,
// and throws kDevice naming it if it failed.
void WaitForLaunch(const char* kernel, StreamHandle stream);

}  // namespace kvc::cuda
