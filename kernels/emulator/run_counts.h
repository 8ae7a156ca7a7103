#pragma once
// The process's RunCounts, for the emulator's own sources.

#include <cstdint>

namespace kvc::emulator {
void AddSwitches(uint64_t switches);
}  // namespace kvc::emulator
