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
// True when products run on POSIX threads of OpenBLAS's own, false when they run on the OpenMP
// threads that other libraries share.
[[nodiscard]] bool BlasHasItsOwnThreads();

// A scope in which products and decompositions run on the thread that calls them, in the whole
// process. Scopes of several threads may overlap; the end of the last one restores the number of
// SetBlasThreads. A scope costs tens of nanoseconds where another one is open.
class SingleBlasThread {
 public:
  SingleBlasThread();
  ~SingleBlasThread();
  SingleBlasThread(const SingleBlasThread&) = delete;
  SingleBlasThread& operator=(const SingleBlasThread&) = delete;
};

}  // namespace kvc::linalg
