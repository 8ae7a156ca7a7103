#pragma once
// The choice of the instruction set that the kernels use. For tests and benchmarks.

#include <cstdint>
#include <string>
#include <vector>

namespace kvc::kernels {

// The instruction sets that the kernels were compiled for and this CPU has, best first.
std::vector<int64_t> SupportedSimdTargets();
// The name of an instruction set: "AVX3" (AVX-512), "AVX2", "SSE4", "SCALAR".
std::string SimdTargetName(int64_t target);
// Makes all kernels of the process use `target` from now on; 0 chooses the best again. Must not be
// called while a kernel runs.
void UseSimdTarget(int64_t target);

// Whether kernels for AVX3 take the dot products of bytes that some of its CPUs have (AVX-512
// VNNI): where this CPU has them, unless tests forbid it. Not while a kernel runs.
[[nodiscard]] bool HasVnni();
void AllowVnni(bool allowed);

}  // namespace kvc::kernels
