#include "model/threads.h"

#include <algorithm>
#include <thread>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <malloc.h>

namespace kvc::model {
namespace {

// Returns true if products run on another set of threads than LibTorch's other operations: Debian's
// LibTorch has OpenMP threads for these and OpenBLAS's own for products.
bool ProductsHaveOwnThreads() { return !at::hasMKL() && linalg::BlasHasItsOwnThreads(); }

#ifdef __GLIBC__
// Largest size up to which freed memory stays with the process. Without it every temporary of a
// layer is returned and faulted in again: a tenth of the time of a layer of 512 tokens and width
// 576.
constexpr int kLargestHeapBlock = 64 << 20;
constexpr int kKeptFreeMemory = 256 << 20;

void KeepFreedMemory() {
  mallopt(M_MMAP_THRESHOLD, kLargestHeapBlock);
  mallopt(M_TRIM_THRESHOLD, kKeptFreeMemory);
}
#else
void KeepFreedMemory() {}
#endif

}  // namespace

void SetThreads(int num_threads) {
  if (num_threads <= 0) {
    num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  // Idle OpenMP threads spin for milliseconds after each operation, on the cores that the products'
  // threads want: forward and backward of a layer took 5 to 10 times as long with both sets (two
  // busy cores) as with one thread for all but the products.
  at::set_num_threads(ProductsHaveOwnThreads() ? 1 : num_threads);
  // LibTorch does not pass the number on to OpenBLAS.
  linalg::SetBlasThreads(num_threads);
  KeepFreedMemory();
}

int NumThreads() { return linalg::BlasThreads(); }

SingleThreadedOperations::SingleThreadedOperations()
    : operation_threads_(at::get_num_threads()), product_threads_(NumThreads()) {
  single_.emplace();
  at::set_num_threads(1);
}

SingleThreadedOperations::~SingleThreadedOperations() { at::set_num_threads(operation_threads_); }

}  // namespace kvc::model
