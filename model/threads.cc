#include "model/threads.h"

#include <algorithm>
#include <thread>

#include <ATen/Parallel.h>
#include <cblas.h>

namespace kvc::model {

void SetThreads(int num_threads) {
  if (num_threads <= 0) {
    num_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }
  at::set_num_threads(num_threads);
  // LibTorch does not pass the number on to OpenBLAS, which has threads of its own.
  openblas_set_num_threads(num_threads);
}

int NumThreads() { return std::max(1, openblas_get_num_threads()); }

SingleThreadedOperations::SingleThreadedOperations()
    : operation_threads_(at::get_num_threads()), product_threads_(NumThreads()) {
  at::set_num_threads(1);
  openblas_set_num_threads(1);
}

SingleThreadedOperations::~SingleThreadedOperations() {
  at::set_num_threads(operation_threads_);
  openblas_set_num_threads(product_threads_);
}

}  // namespace kvc::model
