// The kernels of code_part.h for instruction sets with vectors.
//
// No guard: code_part.cc includes the file once more for AVX-512 with VNNI, whose instructions
// HWY_AVX3 does not allow; KVC_CODES names the namespace, KVC_CODES_VNNI is 1 there.

#if KVC_CODES_VNNI
HWY_PUSH_ATTRIBUTES(HWY_TARGET_STR ",avx512vnni")
#else
HWY_BEFORE_NAMESPACE();
#endif

// In this order: the others use the first.
// clang-format off
#include "kernels/cpu/code_units-inl.h"
#include "kernels/cpu/code_scores-inl.h"
#include "kernels/cpu/code_values-inl.h"
// clang-format on

namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES {

// These functions, for the code outside that chooses among instruction sets.
inline constexpr CodeKernels kKernels = {QueryFloats, QuantizeQueries, ScoreCodes, DigitFloats,
                                         AddCodes};

}  // namespace kvc::kernels::HWY_NAMESPACE::KVC_CODES
HWY_AFTER_NAMESPACE();
#undef KVC_CODES
#undef KVC_CODES_VNNI
