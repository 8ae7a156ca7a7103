#pragma once
// Happens-before among the threads of a grid.

#include <cstdint>
#include <map>

#include "kernels/emulator/thread.h"

namespace kvc::emulator {

// One access: who, in which interval between meetings of its warp, after how many of its fences.
struct Event {
  uint32_t launch = 0;  // 0: none
  int32_t block = 0;
  uint32_t clock = 0;
  uint16_t thread = 0;
  uint16_t fences = 0;
  Site site = nullptr;
};

// What is known of another block: intervals of its warps, and what single threads did within their
// running interval before a fence.
struct Known {
  struct Own {
    uint32_t clock = 0;
    uint16_t fences = 0;
  };
  uint32_t warp[kWarpLanes] = {};
  std::map<int, Own> threads;
};
struct Foreign {
  std::map<int, Known> blocks;
};

// `event` of the running launch is ordered before what `me` does now.
[[nodiscard]] bool Ordered(const Thread& me, const Event& event);

}  // namespace kvc::emulator
