#pragma once
// The number of threads of OpenBLAS and its LAPACK: one number for the whole process, which only
// this file reads and sets.
//
// A program sets how many threads a product may have. Code that runs products side by side, or
// whose bits must not depend on how a product is split, holds a SingleBlasThread meanwhile. All
// functions may be called from any thread.

namespace kvc::linalg {

// Sets the threads of a product outside of every SingleBlasThread; at least 1.
void SetBlasThreads(int num_threads);
// The threads of a product that is called now: 1 while a SingleBlasThread lives anywhere in the
// process.
[[nodiscard]] int BlasThreads();
// Whether products run on POSIX threads of OpenBLAS's own, not on the OpenMP threads that other
// libraries share.
[[nodiscard]] bool BlasHasItsOwnThreads();

// While one lives, products and decompositions run on the thread that calls them, in the whole
// process: objects of several threads may overlap, and the last one to go brings the number of
// SetBlasThreads back. Making one costs tens of nanoseconds where another lives.
class SingleBlasThread {
 public:
  SingleBlasThread();
  ~SingleBlasThread();
  SingleBlasThread(const SingleBlasThread&) = delete;
  SingleBlasThread& operator=(const SingleBlasThread&) = delete;
};

}  // namespace kvc::linalg
