#include "kernels/emulator/checker.h"

#include <map>
#include <vector>

#include "kernels/emulator/checker_state.h"
#include "kernels/emulator/memory.h"
#include "kernels/emulator/order.h"
#include "kernels/emulator/traffic.h"

namespace kvc::emulator {
namespace {

constexpr uint32_t kHost = 1;  // Event::launch of what the host wrote
constexpr size_t kPair = 2;    // bytes that share a cell

// What is remembered of two bytes.
struct Cell {
  Event write;
  Event read[2];           // the last that are not ordered one after the other
  uint32_t in_flight = 0;  // launch, or block's number in shared memory: a copy is under way
};

// (The checker has one OS thread.)
bool hooks_linked = false;
uint32_t launch = kHost;       // of the running grid; counts up
uint32_t previous_launch = 0;  // the one before it in its stream
bool early = false;
uint32_t shared_generation = kHost;           // of the running block
std::map<const void*, uint32_t> last_launch;  // of each stream
std::vector<Cell> shared_cells;
uint16_t fences[kMostThreads];

struct Space {
  uint32_t generation;  // of events that may be unordered
  bool shared;
};

const char* Text(const Space& space, const char* shared, const char* global) {
  return space.shared ? shared : global;
}

Event EventOf(const Thread& me, uint32_t generation, Site site) {
  return {generation,
          me.block->number,
          me.warp->clock[me.id / kWarpLanes],
          static_cast<uint16_t>(me.id),
          FencesOf(me),
          site};
}

bool Races(const Thread& me, const Event& event, const Space& space) {
  return event.launch == space.generation && !Ordered(me, event);
}

void CheckRead(const Thread& me, const Cell& cell, const Space& space, Site site) {
  if (cell.write.launch == 0 || (space.shared && cell.write.launch != space.generation)) {
    Fail(Text(space, "shared memory: expected something written, got an unwritten read",
              "global memory: expected something written, got an unwritten read"),
         site);
  }
  if (Races(me, cell.write, space)) {
    Fail(Text(space,
              "shared memory: expected a meeting after another thread's write, got a race (read)",
              "global memory: expected a meeting or fences after another thread's write, got a "
              "race (read)"),
         site, cell.write.site);
  }
}

void CheckWrite(const Thread& me, const Cell& cell, const Space& space, Site site) {
  if (Races(me, cell.write, space)) {
    Fail(Text(space, "shared memory: expected a meeting between two writes, got a race (write)",
              "global memory: expected a meeting or fences between two writes, got a race (write)"),
         site, cell.write.site);
  }
  for (const Event& read : cell.read) {
    if (Races(me, read, space)) {
      Fail(Text(space,
                "shared memory: expected a meeting after another thread's read, got a race "
                "(overwrite)",
                "global memory: expected a meeting or fences after another thread's read, got a "
                "race (overwrite)"),
           site, read.site);
    }
  }
}

// An early launch may not rely on, nor disturb, the launch that may still run.
void CheckEarly(const Thread& me, const Cell& cell, bool write, Site site) {
  if (!early || previous_launch == 0 || me.waited_for_previous) {
    return;
  }
  if (cell.write.launch == previous_launch) {
    Fail(
        "global memory: expected WaitForPrevious before what the last launch wrote, got an early "
        "access",
        site, cell.write.site);
  }
  for (const Event& read : cell.read) {
    if (write && read.launch == previous_launch) {
      Fail(
          "global memory: expected WaitForPrevious before overwriting what the last launch reads, "
          "got an "
          "early access",
          site, read.site);
    }
  }
}

void Record(const Thread& me, Cell& cell, const Space& space, bool write, Site site) {
  const Event event = EventOf(me, space.generation, site);
  if (write) {
    cell.write = event;
    cell.read[0] = cell.read[1] = Event();
  } else if (cell.read[0].launch != space.generation || Ordered(me, cell.read[0])) {
    cell.read[0] = event;
  } else {
    cell.read[1] = event;
  }
}

// The cells of a range, or null: not memory of the device.
struct Cells {
  Cell* first = nullptr;
  size_t num = 0;
  Space space = {};
};

Cells FindCells(const Thread& me, const void* address, size_t bytes, Site site) {
  const auto* byte = static_cast<const std::byte*>(address);
  const Block& block = *me.block;
  const std::byte* base = nullptr;
  Cell* cells = nullptr;
  Space space = {launch, false};
  if (byte >= block.shared && byte < block.shared + kMostSharedBytes) {
    if (byte + bytes > block.shared + block.shared_bytes) {
      Fail("shared memory: expected the launch's bytes, got an access out of bounds", site);
    }
    base = block.shared;
    cells = shared_cells.data();
    space = {shared_generation, true};
  } else if (InDeviceRange(address)) {
    Allocation* allocation = FindAllocation(address, bytes);
    if (allocation == nullptr) {
      Fail("global memory: expected an allocation, got an access out of bounds", site);
    }
    base = allocation->begin;
    cells = static_cast<Cell*>(ShadowOf(*allocation, sizeof(Cell)));
  } else {
    return {};  // a local that lives in memory, an argument
  }
  const auto offset = static_cast<size_t>(byte - base);
  const size_t first = offset / kPair;
  return {cells + first, (offset + bytes - 1) / kPair - first + 1, space};
}

}  // namespace

bool HooksLinked() { return hooks_linked; }
void SetHooksLinked() { hooks_linked = true; }
bool Checking() { return hooks_linked && GetOptions().check; }
bool Counting() { return hooks_linked && GetOptions().count; }
uint16_t& FencesOf(const Thread& thread) { return fences[thread.id]; }

void BeginGrid(const Grid& grid) {
  if (!Checking()) {
    return;
  }
  uint32_t& last = last_launch[grid.stream];
  previous_launch = last;
  last = ++launch;
  early = grid.early;
  ForgetReleased();
}

void BeginBlock(Block& block) {
  if (Counting()) {
    BeginTraffic(block);
  }
  if (!Checking()) {
    return;
  }
  ++shared_generation;
  shared_cells.resize(kMostSharedBytes / kPair);
  for (size_t w = 0; w < block.warps.size(); ++w) {
    block.warps[w].clock[w] = 1;
  }
  for (uint16_t& count : fences) {
    count = 0;
  }
}

void EndBlock(Block& block) {
  if (Counting()) {
    EndTraffic(block);
  }
}

void CheckAccess(const void* address, size_t bytes, bool write, Site site, bool aligned) {
  if (self == nullptr || bytes == 0 || !(Checking() || Counting())) {
    return;
  }
  Thread& me = *self;
  if (Counting()) {
    CountAccess(me, address, bytes, site);
  }
  if (!Checking()) {
    return;
  }
  const Cells cells = FindCells(me, address, bytes, site);
  if (cells.first != nullptr && aligned && reinterpret_cast<uintptr_t>(address) % bytes != 0) {
    Fail("expected an address that is a multiple of the access, got a misaligned one", site);
  }
  for (Cell* cell = cells.first; cell != cells.first + cells.num; ++cell) {
    if (cells.space.shared && cell->in_flight == cells.space.generation) {
      Fail("shared memory: expected the copy to be waited for, got an access to a copy in flight",
           site, cell->write.site);
    }
    if (!cells.space.shared) {
      CheckEarly(me, *cell, write, site);
    }
    if (write) {
      CheckWrite(me, *cell, cells.space, site);
    } else {
      CheckRead(me, *cell, cells.space, site);
    }
    Record(me, *cell, cells.space, write, site);
  }
}

void CheckIssue(const PendingCopy& copy) {
  if (copy.valid) {
    CheckAccess(copy.from, 16, false, copy.site);
  }
  CheckAccess(copy.to, 16, true, copy.site);
  if (!Checking()) {
    return;
  }
  const Cells cells = FindCells(*self, copy.to, 16, copy.site);
  if (cells.first == nullptr || !cells.space.shared) {
    Fail("expected a copy into shared memory, got another address", copy.site);
  }
  for (size_t i = 0; i < cells.num; ++i) {
    cells.first[i].in_flight = shared_generation;
  }
}

void CheckLanding(const PendingCopy& copy) {
  if (!Checking()) {
    return;
  }
  const Cells cells = FindCells(*self, copy.to, 16, copy.site);
  for (size_t i = 0; i < cells.num; ++i) {
    cells.first[i].in_flight = 0;
    Record(*self, cells.first[i], cells.space, true, copy.site);
  }
}

void CheckAtomic(const int* address, Site site) {
  if (!Checking()) {
    return;
  }
  const Cells cells = FindCells(*self, address, sizeof(int), site);
  if (reinterpret_cast<uintptr_t>(address) % sizeof(int) != 0) {
    Fail("expected an address that is a multiple of the access, got a misaligned one", site);
  }
  for (size_t i = 0; i < cells.num; ++i) {
    if (cells.first[i].write.launch == 0) {
      Fail("global memory: expected something written, got an unwritten read", site);
    }
    CheckEarly(*self, cells.first[i], true, site);
  }
  ReleaseThrough(address);
}

void MarkWritten(const void* address, size_t bytes) {
  if (!Checking() || bytes == 0) {
    return;
  }
  Allocation* allocation = FindAllocation(address, bytes);
  if (allocation == nullptr) {
    return;
  }
  auto* cells = static_cast<Cell*>(ShadowOf(*allocation, sizeof(Cell)));
  const auto offset =
      static_cast<size_t>(static_cast<const std::byte*>(address) - allocation->begin);
  for (size_t i = offset / kPair; i <= (offset + bytes - 1) / kPair; ++i) {
    cells[i] = Cell();
    cells[i].write.launch = kHost;
  }
}

}  // namespace kvc::emulator
