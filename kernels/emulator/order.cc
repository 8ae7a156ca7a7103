#include "kernels/emulator/order.h"

#include <algorithm>
#include <unordered_map>

#include "kernels/emulator/checker.h"
#include "kernels/emulator/checker_state.h"

namespace kvc::emulator {
namespace {

using ForeignPtr = std::shared_ptr<Foreign>;

// What was released through each atomic of the running launch. (The checker has one OS thread.)
std::unordered_map<const int*, ForeignPtr> released;

// target gets what source knows; shared values are never changed in place.
void Merge(ForeignPtr& target, const ForeignPtr& source) {
  if (source == nullptr || source == target) {
    return;
  }
  if (target == nullptr) {
    target = source;
    return;
  }
  auto merged = std::make_shared<Foreign>(*target);
  for (const auto& [block, known] : source->blocks) {
    Known& mine = merged->blocks[block];
    for (int w = 0; w < kWarpLanes; ++w) {
      mine.warp[w] = std::max(mine.warp[w], known.warp[w]);
    }
    for (const auto& [thread, own] : known.threads) {
      Known::Own& entry = mine.threads[thread];
      if (std::pair(own.clock, own.fences) > std::pair(entry.clock, entry.fences)) {
        entry = own;
      }
    }
  }
  target = std::move(merged);
}

bool KnownIn(const ForeignPtr& foreign, const Event& event) {
  if (foreign == nullptr) {
    return false;
  }
  const auto block = foreign->blocks.find(event.block);
  if (block == foreign->blocks.end()) {
    return false;
  }
  const Known& known = block->second;
  if (known.warp[event.thread / kWarpLanes] >= event.clock) {
    return true;
  }
  const auto own = known.threads.find(event.thread);
  return own != known.threads.end() &&
         std::pair(event.clock, event.fences) < std::pair(own->second.clock, own->second.fences);
}

int WarpOf(const Thread& thread) { return thread.id / kWarpLanes; }

}  // namespace

bool Ordered(const Thread& me, const Event& event) {
  if (event.block != me.block->number) {
    return KnownIn(me.acquired, event) || KnownIn(me.warp->acquired, event);
  }
  if (event.thread == me.id) {
    return true;
  }
  // A meeting hands on the clock and then moves it: within a warp it must have moved.
  const int warp = event.thread / kWarpLanes;
  const uint32_t clock = me.warp->clock[warp];
  return warp == WarpOf(me) ? clock > event.clock : clock >= event.clock;
}

void JoinThreads(Block& block, const std::vector<Thread*>& threads) {
  if (!Checking()) {
    return;
  }
  uint32_t clock[kWarpLanes] = {};
  ForeignPtr acquired;
  bool waited = false;
  for (const Thread* thread : threads) {
    for (size_t w = 0; w < block.warps.size(); ++w) {
      clock[w] = std::max(clock[w], thread->warp->clock[w]);
    }
    Merge(acquired, thread->acquired);
    Merge(acquired, thread->warp->acquired);
    waited = waited || thread->waited_for_previous;
  }
  for (Thread* thread : threads) {
    const int own = WarpOf(*thread);
    std::copy(clock, clock + kWarpLanes, thread->warp->clock);
    thread->warp->clock[own] = clock[own] + 1;
    thread->warp->acquired = acquired;
    thread->waited_for_previous = waited;
  }
}

void JoinWarp(Warp& warp) {
  if (!Checking()) {
    return;
  }
  bool waited = false;
  for (const Thread* thread : warp.arrived) {
    Merge(warp.acquired, thread->acquired);
    waited = waited || thread->waited_for_previous;
  }
  for (Thread* thread : warp.arrived) {
    thread->waited_for_previous = waited;
  }
  ++warp.clock[WarpOf(*warp.arrived[0])];
}

void CheckFence() {
  if (!Checking()) {
    return;
  }
  Thread& me = *self;
  Merge(me.acquired, me.observed);
  ++FencesOf(me);
  auto all = std::make_shared<Foreign>();
  Known& own = all->blocks[me.block->number];
  std::copy(me.warp->clock, me.warp->clock + kWarpLanes, own.warp);
  own.warp[WarpOf(me)] -= 1;  // the other lanes' running interval is not ordered before the fence
  own.threads[me.id] = {me.warp->clock[WarpOf(me)], FencesOf(me)};
  ForeignPtr fenced = std::move(all);
  Merge(fenced, me.acquired);
  Merge(fenced, me.warp->acquired);
  me.fenced = std::move(fenced);
}

void ReleaseThrough(const int* address) {
  Thread& me = *self;
  ForeignPtr& value = released[address];
  Merge(me.observed, value);
  Merge(value, me.fenced);
}

void ForgetReleased() { released.clear(); }

}  // namespace kvc::emulator
