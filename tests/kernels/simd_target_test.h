#pragma once
// A test that runs on every instruction set that the CPU has and the kernels were compiled for.

#include <gtest/gtest.h>

#include "kernels/cpu/simd_targets.h"

namespace kvc::kernels {

class SimdTargetTest : public testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override { UseSimdTarget(GetParam()); }
  void TearDown() override { UseSimdTarget(0); }
};

inline std::string NameOfTarget(const testing::TestParamInfo<int64_t>& info) {
  return SimdTargetName(info.param);
}

#define KVC_FOR_EVERY_SIMD_TARGET(suite) \
  INSTANTIATE_TEST_SUITE_P(Simd, suite, testing::ValuesIn(SupportedSimdTargets()), NameOfTarget)

}  // namespace kvc::kernels
