// Whole models through the instrumented kernels: no race, no read of what was not written, nothing
// out of bounds in any launch of a prompt, its compression and the tokens after it.

#include <cmath>
#include <vector>

#include <gtest/gtest.h>

#include "tests/runtime/both_backends.h"

namespace kvc::runtime {
namespace {

class EveryKindChecked : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(
    Models,
    EveryKindChecked,
    ::testing::Values("qwen3", "gpt2-absorb", "qwen3-latent", "mistral-rope-pairs"),
    kvc::testing::ParameterName());

TEST_P(EveryKindChecked, FullCache) {
  Both both(GetParam(), DType::kBF16);
  ExpectAlike(both, both.processor.geometry(), "full");
}

TEST_P(EveryKindChecked, BudgetAndTiers) {
  Both both(GetParam());
  const CacheSpec geometry = both.processor.geometry();
  ExpectAlike(both, BudgetWithoutTies(geometry), "budget");
  ExpectAlike(both, TiersWithoutTies(geometry, TierBasis::kPrompt, HasThinKeys(GetParam())),
              "tiers");
}

// The device alone, rows moving between tiers while tokens are decoded.
void ExpectReallocates(Both& both, const CacheSpec& spec) {
  const auto sequence = both.OnDevice(spec);
  testing::PrefillLast(both.session, *sequence, RandomIds(30, 5));
  for (const int32_t id : both.processor.More(20, 30, 6)) {
    for (const float logit : testing::DecodeOne(both.session, *sequence, id)) {
      ASSERT_TRUE(std::isfinite(logit));
    }
  }
  EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
}

// Compared where what is decoded is kept, as in cuda_backend_test.cc.
TEST_P(EveryKindChecked, RowsInFewBits) {
  Both both(GetParam());
  const CacheSpec geometry = both.processor.geometry();
  for (const CacheSpec& spec : {StepTiersWithoutTies(geometry), MixturesWithoutTies(geometry)}) {
    ExpectAlike(both, spec, "few bits", DecodePolicy::kAppend);
    ExpectReallocates(both, spec);
  }
}

TEST_P(EveryKindChecked, Int8Rows) {
  Both both(GetParam());
  CacheSpec spec = both.processor.geometry();
  spec.key_format = kRowsInt8;
  spec.value_format = kRowsInt8;
  ExpectAlike(both, spec, "int8");
}

}  // namespace
}  // namespace kvc::runtime
