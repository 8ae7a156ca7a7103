#pragma once
// Buffers that a thread keeps from one call to the next, so that a kernel allocates nothing in the
// steady state and its pages are warm. Internal to kernels/cpu.

#include <cstdint>

namespace kvc::kernels {

// What a buffer holds; two uses never share one.
enum class ScratchUse { kPanels, kStrip, kScores, kKeys, kValues, kPartials, kCount };

// At least `count` floats, 64-byte aligned, of unspecified content, until this thread's next call
// for the same use. Grows, never shrinks.
float* Scratch(ScratchUse use, int64_t count);

}  // namespace kvc::kernels
