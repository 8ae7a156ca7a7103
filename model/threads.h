#pragma once
// Numbers of threads on the LibTorch side: those of its operations, and those of its matrix
// products, which linalg/blas_threads.h owns.

#include <optional>

#include "linalg/blas_threads.h"

namespace kvc::model {

// Sets the threads of matrix products, of LibTorch's other operations if they share threads with
// the products, and of the streamed passes (model/streamed.h); 0 means one per core. Also lets the
// process keep up to 256 MB of freed memory. Call it once, before any work. Code that can run whole
// windows or sequences side by side (RunOrdered in model/ordered_work.h) under
// SingleThreadedOperations is faster than threads inside operations.
void SetThreads(int num_threads);
// Returns the number of threads that is set; at least 1.
[[nodiscard]] int NumThreads();

// While an object exists, LibTorch's operations and matrix products run on the thread that calls
// them. Meant for code that runs several of them side by side.
class SingleThreadedOperations {
 public:
  SingleThreadedOperations();
  ~SingleThreadedOperations();
  SingleThreadedOperations(const SingleThreadedOperations&) = delete;
  SingleThreadedOperations& operator=(const SingleThreadedOperations&) = delete;

  // Returns NumThreads() outside of this object.
  [[nodiscard]] int outer_threads() const { return product_threads_; }

 private:
  int operation_threads_ = 1;
  int product_threads_ = 1;
  std::optional<linalg::SingleBlasThread> single_;  // made after product_threads_ was read
};

}  // namespace kvc::model
