#pragma once
// Runs the steps of a section, but attention, over the rows of a batch.

#include <cstdint>

#include "core/base/thread_pool.h"
#include "core/base/view.h"
#include "runtime/backend.h"
#include "runtime/cpu/cpu_activations.h"
#include "runtime/plan/plan.h"

namespace kvc::runtime {

// `logits` [rows of the batch, V]: where the last section's result goes; not read by others.
void RunSteps(
    int64_t section, SectionPart part, CpuActivations& x, MatrixF logits, ThreadPool& pool);

}  // namespace kvc::runtime
