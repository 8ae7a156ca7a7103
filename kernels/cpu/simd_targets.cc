#include "kernels/cpu/simd_targets.h"

#include <hwy/highway.h>

namespace kvc::kernels {

std::vector<int64_t> SupportedSimdTargets() { return hwy::SupportedAndGeneratedTargets(); }

std::string SimdTargetName(int64_t target) { return hwy::TargetName(target); }

void UseSimdTarget(int64_t target) {
  hwy::SetSupportedTargetsForTest(target);
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
}

}  // namespace kvc::kernels
