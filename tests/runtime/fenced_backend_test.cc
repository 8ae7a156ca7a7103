// The fence itself: it catches a touch of the host's, and changes no number.

#include "tests/runtime/fenced_backend.h"

#include <cstring>

#include <gtest/gtest.h>

#include "runtime/cpu/host_memory.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

using kvc::testing::DecodeOne;
using kvc::testing::Policy;
using kvc::testing::PrefillLast;

TEST(FencedDevice, CopiesGoThroughTheFence) {
  FencedDevice device;
  CacheMeter meter;
  const std::vector<int32_t> sent = {3, 1, 4, 1, 5};
  const Buffer one(5000, device, &meter);
  const Buffer two(5000, device, &meter);
  EXPECT_EQ(meter.live_bytes(), 10000);
  device.ToDevice(sent.data(), one, 4000, 20);
  device.Copy(one, 4000, two, 100, 20);
  std::vector<int32_t> received(5);
  device.ToHost(two, 100, received.data(), 20);
  EXPECT_EQ(received, sent);
  EXPECT_EQ(device.openings(), 3);
}

TEST(FencedDeviceDeathTest, ATouchOfTheHostIsCaught) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  FencedDevice device;
  const Buffer buffer(64, device, nullptr);
  volatile std::byte* memory = HostMemory::Of(buffer);
  {
    const FencedDevice::Opening opening(device);
    *memory = std::byte{1};  // its own call may
  }
  EXPECT_DEATH(*memory = std::byte{2}, "");
  EXPECT_DEATH(static_cast<void>(*memory), "");
}

// A cache's rows lie behind the fence, also behind a prefill.
TEST(FencedBackendDeathTest, ACachesRowsAreBehindTheFence) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  Loaded loaded({"llama", "fenced"});
  const auto sequence = loaded.session->NewSequence({});
  PrefillLast(*loaded.session, *sequence, RandomIds(10, 1));
  const CacheBlock& block = CacheOf(*sequence).layer(0).groups[0].recent;
  volatile std::byte* memory = HostMemory::Of(block.keys());
  EXPECT_DEATH(static_cast<void>(*memory), "");
}

class EveryLayoutFenced : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutFenced,
                         ::testing::ValuesIn(Layouts()),
                         kvc::testing::ParameterName());

// The same kernels on the same numbers: what differs is who may touch them, and that scores come
// from a copy.
TEST_P(EveryLayoutFenced, IsTheProcessorToTheBit) {
  Loaded plain({GetParam(), "cpu"});
  Loaded fenced({GetParam(), "fenced"});
  std::vector<CacheSpec> specs = {plain.geometry(), Policy(plain.geometry(), Method::kUniform,
                                                           ScorerKind::kOutputError, 14, false)};
  if (QueriesCanTurn(GetParam())) {
    specs.push_back(
        Policy(plain.geometry(), Method::kUniform, ScorerKind::kExpectedAttention, 14, false));
  }
  for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
    CacheSpec& spec = specs.emplace_back(
        Policy(plain.geometry(), Method::kUniform, ScorerKind::kSnapKv, 14, false));
    spec.tiers = {{1.0, 1.0}, {1.0, 0.5}};
    spec.basis = basis;
    spec.bases = testing::RandomBases(plain.geometry(), 3);
  }
  for (const CacheSpec& spec : specs) {
    const auto one = plain.New(spec);
    const auto two = fenced.New(spec);
    const auto prompt = RandomIds(30, 5);
    EXPECT_EQ(PrefillLast(*plain.session, *one, prompt),
              PrefillLast(*fenced.session, *two, prompt));
    const auto clone = two->Clone();
    for (const int32_t id : plain.More(20, 30, 6)) {
      const std::vector<float> expected = DecodeOne(*plain.session, *one, id);
      EXPECT_EQ(DecodeOne(*fenced.session, *two, id), expected);
      EXPECT_EQ(DecodeOne(*fenced.session, *clone, id), expected);
    }
    EXPECT_EQ(one->counters().allocated_bytes, two->counters().allocated_bytes);
    EXPECT_EQ(one->counters().peak_bytes, two->counters().peak_bytes);
  }
}

}  // namespace
}  // namespace kvc::runtime
