#include "linalg/blas_threads.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include <cblas.h>

namespace kvc::linalg {
namespace {

// What openblas_get_parallel returns for a library that runs its own POSIX threads.
constexpr int kOpenBlasOwnThreads = 1;

// The state of the process. `singles` rises from 0 and falls to 0 under the mutex only, after
// OpenBLAS has been told: who sees it above 0 may count on one thread.
struct State {
  std::mutex mutex;
  std::atomic<int> singles{0};
  int num_threads = std::max(1, openblas_get_num_threads());  // outside of every single
};

State& TheState() {
  static State state;
  return state;
}

// Adds `step` to `singles` where it stays above 0; false where it would not.
bool AddAboveZero(std::atomic<int>& singles, int step) {
  int count = singles.load(std::memory_order_acquire);
  while (count > 0 && count + step > 0) {
    if (singles.compare_exchange_weak(count, count + step, std::memory_order_acq_rel)) return true;
  }
  return false;
}

}  // namespace

void SetBlasThreads(int num_threads) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.num_threads = std::max(1, num_threads);
  if (state.singles.load() == 0) openblas_set_num_threads(state.num_threads);
}

int BlasThreads() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  return state.singles.load() > 0 ? 1 : state.num_threads;
}

bool BlasHasItsOwnThreads() { return openblas_get_parallel() == kOpenBlasOwnThreads; }

SingleBlasThread::SingleBlasThread() {
  State& state = TheState();
  if (AddAboveZero(state.singles, 1)) return;
  const std::lock_guard lock(state.mutex);
  if (state.singles.load() == 0) openblas_set_num_threads(1);
  ++state.singles;
}

SingleBlasThread::~SingleBlasThread() {
  State& state = TheState();
  if (AddAboveZero(state.singles, -1)) return;
  const std::lock_guard lock(state.mutex);
  if (--state.singles == 0) openblas_set_num_threads(state.num_threads);
}

}  // namespace kvc::linalg
