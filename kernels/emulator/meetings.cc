// Barriers and warp collectives.

#include <cstdlib>

#include "core/base/error.h"
#include "kernels/emulator/checker.h"
#include "kernels/emulator/suspend.h"
#include "kernels/emulator/thread.h"

namespace kvc::emulator {
namespace {

const char* NameOf(Meeting meeting) {
  switch (meeting) {
    case Meeting::kSyncWarp:
      return "a warp barrier";
    case Meeting::kShuffle:
      return "a shuffle";
    case Meeting::kVote:
      return "a vote";
    case Meeting::kReduce:
      return "a warp reduction";
    case Meeting::kLoadMatrix:
      return "ldmatrix";
    case Meeting::kTranspose:
      return "movmatrix";
    case Meeting::kProduct:
      return "mma";
  }
  return "a meeting";
}

void Wait(const char* where, Site site) {
  Thread& me = *self;
  me.waits_at = where;
  me.waits_site = site;
  Suspend();
  me.waits_at = nullptr;
}

// Everybody has come to the barrier; all but `last`, who runs, become ready.
void Release(Block& block, std::vector<Thread*>& waiting, const Thread* last) {
  JoinThreads(block, waiting);
  for (Thread* thread : waiting) {
    if (thread != last) {
      block.ready.push_back(thread);
    }
  }
  waiting.clear();
}

void Arrive(std::vector<Thread*>& waiting, int expected, const char* name, Site site) {
  Thread& me = *self;
  Block& block = *me.block;
  if (!waiting.empty() && !SameLine(waiting.front()->waits_site, site)) {
    Fail("expected one barrier for all threads, got two lines", site, waiting.front()->waits_site);
  }
  waiting.push_back(&me);
  if (static_cast<int>(waiting.size()) < expected) {
    Wait(name, site);
    return;
  }
  Release(block, waiting, &me);
}

}  // namespace

void Fail(const char* what, Site site, Site other) {
  Thread& me = *self;
  me.block->failure = fmt::format("thread {}: {}{}{}", me.id, what, DescribeSite(site),
                                  other == nullptr ? "" : " and" + DescribeSite(other));
  Suspend();  // does not come back: the fiber is forgotten
  std::abort();
}

void MeetBlock(Site site) {
  Block& block = *self->block;
  const int expected = static_cast<int>(block.threads.size()) - block.num_ended;
  Arrive(block.at_barrier[0], expected, "the block's barrier", site);
}

// Producers and consumers meet from different lines.
void MeetNamed(int id, int num_threads, Site site) {
  Block& block = *self->block;
  if (id < 1 || id > 15 || num_threads % kWarpLanes != 0) {
    Fail("expected a named barrier 1 to 15 of whole warps, got another", site);
  }
  std::vector<Thread*>& waiting = block.at_barrier[id];
  waiting.push_back(self);
  if (static_cast<int>(waiting.size()) < num_threads) {
    Wait("a named barrier", site);
    return;
  }
  Release(block, waiting, self);
}

void EndThread(Thread& thread) {
  Block& block = *thread.block;
  ++block.num_ended;
  std::vector<Thread*>& waiting = block.at_barrier[0];
  const size_t left = block.threads.size() - static_cast<size_t>(block.num_ended);
  if (!waiting.empty() && waiting.size() == left) {
    Release(block, waiting, nullptr);
  }
}

void MeetWarp(Meeting meeting, void* operand, void (*finish)(void** operands), Site site) {
  Thread& me = *self;
  Warp& warp = *me.warp;
  if (warp.num_arrived == 0) {
    warp.meeting = meeting;
  } else if (warp.meeting != meeting) {
    Fail("expected all lanes of a warp at one instruction, got two", site,
         warp.arrived[0]->waits_site);
  }
  warp.operand[me.lane] = operand;
  warp.arrived[warp.num_arrived++] = &me;
  if (warp.num_arrived < kWarpLanes) {
    Wait(NameOf(meeting), site);
    return;
  }
  warp.num_arrived = 0;
  finish(warp.operand);
  if (meeting == Meeting::kSyncWarp) {
    JoinWarp(warp);
  }
  for (Thread* thread : warp.arrived) {
    if (thread != &me) {
      me.block->ready.push_back(thread);
    }
  }
}

void* SharedMemoryOf(size_t bytes, Site site) {
  if (bytes > self->block->shared_bytes) {
    Fail("expected shared memory for the kernel's struct, got a launch with less", site);
  }
  return self->block->shared;
}

}  // namespace kvc::emulator
