#pragma once
// What the checker's sources share.

#include <cstdint>

#include "kernels/emulator/emulator.h"
#include "kernels/emulator/thread.h"

namespace kvc::emulator {

// Hooks are linked and faults are wanted; accesses are counted.
[[nodiscard]] bool Checking();
[[nodiscard]] bool Counting();

// Fences that a thread of the running block has passed.
uint16_t& FencesOf(const Thread& thread);

// An atomic at `address` learns what its thread has fenced, and the thread what others had.
void ReleaseThrough(const int* address);
void ForgetReleased();

}  // namespace kvc::emulator
