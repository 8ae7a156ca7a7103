#pragma once
// Runs the steps of a section, but attention, over the rows of a batch on a CUDA device.

#include <cstdint>

#include "runtime/backend.h"
#include "runtime/cuda/cuda_activations.h"

namespace kvc::runtime {

// Puts the steps into the device's stream and waits for nothing. The last section's result goes to
// the activations' logits, for which there must be room.
void RunSteps(int64_t section, SectionPart part, CudaActivations& x);

}  // namespace kvc::runtime
