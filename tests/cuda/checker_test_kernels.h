#pragma once
// Kernels with one fault each, and the same without it, for checker_test.cc.

#include <string>
#include <vector>

#include "kernels/cuda/launch_shape.h"

namespace kvc::cuda {

struct FaultyKernel {
  std::string name;
  std::string report;  // what the checker must say of it; "" where the kernel is right
  int lines = 1;       // source lines that the report must name
  void (*run)(float* data, StreamHandle stream);  // data [512], zeros
};
std::vector<FaultyKernel> FaultyKernels();

// A race whose lines are known: the write and the read.
struct Lines {
  int write, read;
};
Lines RunKnownRace(float* data, StreamHandle stream);

// Reads 32 floats that are `stride` floats apart, once from global and once from shared memory.
void RunStrided(const float* from, float* to, int stride, StreamHandle stream);
// The line of the strided read of global memory, and of shared memory.
Lines StridedLines();

}  // namespace kvc::cuda
