#include "kernels/cpu/code_part.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/code_part.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "kernels/cpu/simd-inl.h"

#if HWY_TARGET == HWY_SCALAR
#include "kernels/cpu/code_rows_scalar-inl.h"
#else
#define KVC_CODES portable
#define KVC_CODES_VNNI 0
#include "kernels/cpu/code_rows-inl.h"
#endif
#if HWY_TARGET == HWY_AVX3
#define KVC_CODES vnni
#define KVC_CODES_VNNI 1
#include "kernels/cpu/code_rows-inl.h"
#endif

HWY_BEFORE_NAMESPACE();
namespace kvc::kernels::HWY_NAMESPACE {

const CodeKernels* Choose() {
#if HWY_TARGET == HWY_AVX3
  if (HasVnni()) return &vnni::kKernels;
#endif
  return &portable::kKernels;
}

}  // namespace kvc::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvc::kernels {

HWY_EXPORT(Choose);

const CodeKernels& CodeKernelsInUse() { return *HWY_DYNAMIC_DISPATCH(Choose)(); }

}  // namespace kvc::kernels
#endif  // HWY_ONCE
