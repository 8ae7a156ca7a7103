#pragma once
// The choice of OpenBLAS' kernels. The library chooses them when it is loaded, by a list of
// processor models; on a model that is younger than the list Debian's falls back to SSE3
// ("Prescott"), with which a factorization takes three times as long. OPENBLAS_CORETYPE in the
// environment overrides the choice, at that moment only.

#include <optional>
#include <string>
#include <string_view>

namespace kvc::linalg {

// Vector instructions that the processor has and the operating system saves.
struct ProcessorFeatures {
  bool amd = false;
  bool avx2 = false;    // AVX2 and FMA
  bool avx512 = false;  // F, CD, BW, DQ and VL
};
[[nodiscard]] ProcessorFeatures ThisProcessor();

// OpenBLAS' name of the kernels in use, for example "Haswell".
[[nodiscard]] std::string BlasKernels();

// The OPENBLAS_CORETYPE with which to start again, where OpenBLAS fell back to `kernels` on a
// processor that can do more; none where it knew the processor or the environment holds a choice
// (`core_type`, null when unset; OpenBLAS ignores an empty one).
[[nodiscard]] std::optional<std::string> FittingCoreType(const ProcessorFeatures& processor,
                                                         std::string_view kernels,
                                                         const char* core_type);

// Starts the program again with `argv` and a fitting OPENBLAS_CORETYPE where FittingCoreType finds
// one: at most once, because the variable is then set. Call it first in main, before any thread.
// Keeps the current kernels when the program cannot be started again.
void UseFittingBlasKernels(char** argv);

}  // namespace kvc::linalg
