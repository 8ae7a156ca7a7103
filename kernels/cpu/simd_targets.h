#pragma once
// The instruction sets that the kernels were compiled for. For tests and benchmarks.

#include <cstdint>
#include <string>
#include <vector>

namespace kvc::kernels {

// Those of this CPU, best first.
std::vector<int64_t> SupportedSimdTargets();
// "AVX3" (AVX-512), "AVX2", "SSE4", "SCALAR".
std::string SimdTargetName(int64_t target);
// Kernels use `target` from now on; 0: the best again. Not while a kernel runs.
void UseSimdTarget(int64_t target);

}  // namespace kvc::kernels
