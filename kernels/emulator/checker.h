#pragma once
// Tells of what a GPU would not: races, reads of what nobody wrote, and the like, with both source
// lines. Only what kvc_cuda_checked runs is seen.
//
// Its kernels are compiled with -fsanitize=thread, whose hooks (hooks.cc) report every load and
// store that the compiler does not keep in registers; ThreadSanitizer's own runtime is not linked.
// Every two bytes of shared and global memory have a shadow: the last write and two reads, each
// with block, thread, and the interval between meetings in which it happened. Two accesses by
// different threads, one of them a write, must be ordered by a barrier that both came to (vector
// clocks, one entry a warp; shuffles, votes and products order nothing), or, between blocks, by
// fence, atomic, atomic, fence. Faults:
//
//   race            two unordered accesses, one a write
//   unwritten       a read of what neither host nor device has written
//   copy in flight  shared memory touched before the copy into it was waited for
//   bounds          outside the allocation, or the block's shared memory
//   misaligned      an address that is no multiple of the access's bytes
//   early           an early launch touches what the launch before writes, or overwrites what it
//                   reads, before WaitForPrevious
//
// The calls below are the emulator's; without hooks, or with Options::check off, they do nothing.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/emulator/thread.h"

namespace kvc::emulator {

// The process has hooks: kvc_cuda_checked is linked.
[[nodiscard]] bool HooksLinked();
void SetHooksLinked();

void BeginGrid(const Grid& grid);
void BeginBlock(Block& block);
void EndBlock(Block& block);

// A barrier of these threads, or of all lanes of a warp, orders what came before it.
void JoinThreads(Block& block, const std::vector<Thread*>& threads);
void JoinWarp(Warp& warp);
// A fence, and an atomic through which what was fenced becomes known.
void CheckFence();
void CheckAtomic(const int* address, Site site);

void CheckAccess(const void* address, size_t bytes, bool write, Site site, bool aligned = true);
void CheckIssue(const PendingCopy& copy);
void CheckLanding(const PendingCopy& copy);
// What the host, or a copy or fill of a stream, writes.
void MarkWritten(const void* address, size_t bytes);

// " at kernel.cu:12", from debug information by addr2line; "" for a null site.
[[nodiscard]] std::string DescribeSite(Site site);
[[nodiscard]] bool SameLine(Site a, Site b);

}  // namespace kvc::emulator
