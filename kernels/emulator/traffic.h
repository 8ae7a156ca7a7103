#pragma once
// Counts what a kernel's loads, stores and copies ask of memory, per source line
// (Options::count, kvc_cuda_checked only).
//
// Global memory is served in sectors of 32 bytes: a warp's instruction asks for every sector that
// one of its lanes touches, so bytes used / (32 x sectors asked) is what coalescing leaves. Shared
// memory has 32 banks of 4 bytes: an instruction takes as many passes as the busiest bank has
// different words, wider accesses 128 bytes at a time; passes / least passes is 1 without bank
// conflicts.

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/emulator/thread.h"

namespace kvc::emulator {

struct Traffic {
  uint64_t used_bytes = 0;  // global memory: asked for by lanes
  uint64_t sectors = 0;     // asked for by warps
  uint64_t passes = 0;      // shared memory
  uint64_t least_passes = 0;
};
struct LineTraffic {
  std::string line;  // "decode_rows.cuh:54"
  Traffic traffic;
};
// By line, in order of lines.
[[nodiscard]] std::vector<LineTraffic> GetLineTraffic();
[[nodiscard]] Traffic GetTraffic();
// Different sectors of global memory touched since the last reset.
[[nodiscard]] uint64_t GetDistinctSectors();
void ResetTraffic();

// The emulator's calls.
void BeginTraffic(const Block& block);
void CountAccess(const Thread& me, const void* address, size_t bytes, Site site);
void EndTraffic(const Block& block);

}  // namespace kvc::emulator
