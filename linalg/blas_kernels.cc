#include "linalg/blas_kernels.h"

#include <cstdlib>

#include <cblas.h>
#include <unistd.h>

namespace kvc::linalg {
namespace {

constexpr char kCoreType[] = "OPENBLAS_CORETYPE";

}  // namespace

ProcessorFeatures ThisProcessor() {
  ProcessorFeatures features;
#ifdef __x86_64__
  __builtin_cpu_init();
  features.amd = __builtin_cpu_is("amd") != 0;
  features.avx2 = __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  features.avx512 =
      __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512cd") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0 &&
      __builtin_cpu_supports("avx512vl") != 0;
#endif
  return features;
}

std::string BlasKernels() { return openblas_get_corename(); }

std::optional<std::string> FittingCoreType(const ProcessorFeatures& processor,
                                           std::string_view kernels,
                                           const char* core_type) {
  const bool chosen = core_type != nullptr && *core_type != '\0';
  // No processor that OpenBLAS knows as a Prescott has AVX2.
  if (chosen || kernels != "Prescott") return std::nullopt;
  // The kernels of Cooperlake and SapphireRapids differ from these in bfloat16 products alone.
  if (processor.avx512) return "SkylakeX";
  if (processor.avx2) return processor.amd ? "Zen" : "Haswell";
  return std::nullopt;
}

void UseFittingBlasKernels(char** argv) {
  const auto core_type = FittingCoreType(ThisProcessor(), BlasKernels(), std::getenv(kCoreType));
  if (!core_type) return;
  ::setenv(kCoreType, core_type->c_str(), /*overwrite=*/1);
  ::execv("/proc/self/exe", argv);
}

}  // namespace kvc::linalg
