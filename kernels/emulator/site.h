#pragma once
// Source lines of code addresses.

#include <string>

#include "kernels/emulator/thread.h"

namespace kvc::emulator {

// "rows.cuh:54 <- decode.cu:79": the line of a return address and, where the function is inlined,
// of its callers, from debug information (-g1) by binutils' addr2line; "module+0x12ab" without
// either.
// "" for null. Kept, so that a line is looked up once.
[[nodiscard]] std::string LineOf(Site site);

}  // namespace kvc::emulator
