// Asynchronous copies, atomics and fences.

#include <algorithm>
#include <atomic>
#include <cstring>

#include "kernels/emulator/checker.h"
#include "kernels/emulator/thread.h"

namespace kvc::emulator {
namespace {
constexpr size_t kCopyBytes = 16;

void Land(const PendingCopy& copy) {
  CheckLanding(copy);
  if (copy.valid) {
    std::memcpy(copy.to, copy.from, kCopyBytes);
  } else {
    std::memset(copy.to, 0, kCopyBytes);
  }
}
}  // namespace

void CopyAsync(void* shared, const void* global, bool valid, Site site) {
  Thread& me = *self;
  const PendingCopy copy = {shared, global, valid, site};
  CheckIssue(copy);
  std::memset(shared, 0xff, kCopyBytes);  // neither old nor new until it lands
  me.copies.push_back(copy);
  ++me.open_copies;
}

void CommitCopyGroup() {
  self->committed.push_back(self->open_copies);
  self->open_copies = 0;
}

void WaitForCopies(int pending) {
  Thread& me = *self;
  const size_t groups = me.committed.size();
  const size_t landing = groups - std::min(groups, static_cast<size_t>(pending));
  size_t num = 0;
  for (size_t group = 0; group < landing; ++group) {
    for (size_t i = 0; i < me.committed[group]; ++i) {
      Land(me.copies[num++]);
    }
  }
  me.copies.erase(me.copies.begin(), me.copies.begin() + static_cast<std::ptrdiff_t>(num));
  me.committed.erase(me.committed.begin(),
                     me.committed.begin() + static_cast<std::ptrdiff_t>(landing));
}

int AtomicAddInt(int* address, int value, Site site) {
  CheckAtomic(address, site);
  return std::atomic_ref<int>(*address).fetch_add(value);
}

float LoadFloat(const float* address, Site site) {
  CheckAccess(address, sizeof(float), false, site);
  return std::atomic_ref<float>(*const_cast<float*>(address)).load(std::memory_order_relaxed);
}

void FenceDevice() {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  CheckFence();
}

void WaitForPreviousGrid() { self->waited_for_previous = true; }

}  // namespace kvc::emulator
