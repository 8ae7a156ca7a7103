#pragma once
// What a running kernel sees of the emulator: the calling thread of the grid, its warp and block,
// and the calls by which threads meet and copy. kernels/cuda/device_emulated.cuh is written on
// these.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/emulator/emulator.h"
#include "kernels/emulator/toolkit.h"

namespace kvc::emulator {

// An address in the kernel's code, which debug information turns into a source line.
using Site = const void*;

// Device functions whose call is reported by its line. In the checked library they stay calls, so
// that the return address is the line that called.
#if defined(KVC_EMULATOR_CHECKS)
#define KVC_SITE __attribute__((noinline, no_sanitize("thread"))) inline
#define KVC_CALLER __builtin_return_address(0)
#else
#define KVC_SITE inline
#define KVC_CALLER nullptr
#endif

// The instruction at which lanes of a warp meet: all must be at the same kind.
enum class Meeting { kSyncWarp, kShuffle, kVote, kReduce, kLoadMatrix, kTranspose, kProduct };

struct Warp;
struct Block;
struct Foreign;  // what is known of other blocks (checker.h)

struct PendingCopy {
  void* to;  // 16 bytes of shared memory
  const void* from;
  bool valid;  // false: zeros
  Site site;
};

struct Thread {
  uint3 index{};
  int id = 0;    // in the block
  int lane = 0;  // in the warp
  Warp* warp = nullptr;
  Block* block = nullptr;
  bool ended = false;
  const char* waits_at = nullptr;  // the meeting it waits in, for messages
  Site waits_site = nullptr;
  std::vector<PendingCopy> copies;    // issued and not landed, oldest first
  std::vector<size_t> committed;      // copies of each committed group, oldest first
  size_t open_copies = 0;             // issued since the last commit
  bool waited_for_previous = false;   // WaitForPrevious was called
  std::shared_ptr<Foreign> observed;  // published by atomics that it has read, not yet fenced
  std::shared_ptr<Foreign> fenced;    // what its last fence makes its atomics publish
  std::shared_ptr<Foreign> acquired;  // observed before its last fence
};

struct Warp {
  void* operand[kWarpLanes];  // what each lane brings to the meeting
  Thread* arrived[kWarpLanes];
  int num_arrived = 0;
  Meeting meeting = Meeting::kSyncWarp;
  // Vector clock: clock[w] is the last interval between meetings of warp w whose accesses are
  // ordered before what this warp does now; clock[own] is the running interval.
  uint32_t clock[kWarpLanes] = {};
  std::shared_ptr<Foreign> acquired;
};

struct Block {
  uint3 index{}, dim{}, grid_dim{};
  int number = 0;  // in the grid
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::vector<Thread*> ready;
  std::vector<Thread*> at_barrier[16];  // 0: the whole block's
  int num_ended = 0;
  std::byte* shared = nullptr;
  size_t shared_bytes = 0;
  std::string failure;
};

// The thread whose fiber runs. A block's fibers never leave their OS thread.
extern thread_local constinit Thread* self;

// Ends the launch with a message that names `site` and, if given, `other`.
[[noreturn]] void Fail(const char* what, Site site = nullptr, Site other = nullptr);

// All threads of the block that have not ended meet.
void MeetBlock(Site site);
// `num_threads` threads, whole warps, meet at barrier `id`, 1 to 15.
void MeetNamed(int id, int num_threads, Site site);
// All lanes of the warp meet; the last to come calls finish with every lane's operand.
void MeetWarp(Meeting meeting, void* operand, void (*finish)(void** operands), Site site);

// The block's dynamic shared memory; fails where the launch has less than `bytes`.
void* SharedMemoryOf(size_t bytes, Site site);

// Asynchronous copies of 16 bytes: land when WaitForCopies leaves at most `pending` groups.
void CopyAsync(void* shared, const void* global, bool valid, Site site);
void CommitCopyGroup();
void WaitForCopies(int pending);

int AtomicAddInt(int* address, int value, Site site);
float LoadFloat(const float* address, Site site);
void FenceDevice();
void WaitForPreviousGrid();

// Reports an access of the checked library's inline functions; see hooks.cc.
#if defined(KVC_EMULATOR_CHECKS)
void Touch(const void* address, size_t bytes, bool write, Site site);
#else
inline void Touch(const void*, size_t, bool, Site) {}
#endif

}  // namespace kvc::emulator
