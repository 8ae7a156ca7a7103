#pragma once
// The second half of planning: cuts the steps into sections and gives every register columns of a
// workspace slot. A slot is reused as soon as nothing on it is needed; operations that may write
// where they read do so.

#include "runtime/plan/lowering.h"

namespace kvc::runtime {

// Schedules the steps. Throws kUnsupported naming the attention node before which no single
// activation is live.
[[nodiscard]] Plan Schedule(LoweredGraph lowered);

}  // namespace kvc::runtime
