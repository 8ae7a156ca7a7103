#pragma once
// How a thread of a block waits, and what happens when one ends. For the emulator's own sources.

#include "kernels/emulator/thread.h"

namespace kvc::emulator {

// Back to the scheduler; returns when the thread is in its block's `ready` and its turn has come.
void Suspend();
// Barriers do not wait for threads that have ended.
void EndThread(Thread& thread);

}  // namespace kvc::emulator
