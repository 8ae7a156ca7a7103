#include "kernels/cpu/simd_targets.h"

#include <hwy/highway.h>

namespace kvc::kernels {
namespace {

bool CpuHasVnni() {
#if HWY_ARCH_X86
  return __builtin_cpu_supports("avx512vnni") != 0;
#else
  return false;
#endif
}

bool vnni_allowed = true;

}  // namespace

std::vector<int64_t> SupportedSimdTargets() { return hwy::SupportedAndGeneratedTargets(); }

std::string SimdTargetName(int64_t target) { return hwy::TargetName(target); }

void UseSimdTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

bool HasVnni() {
  static const bool has = CpuHasVnni();
  return has && vnni_allowed;
}

void AllowVnni(bool allowed) { vnni_allowed = allowed; }

}  // namespace kvc::kernels
