// A device's backend where a call of the runtime fails in the middle of a prompt or a step: the
// error arrives, nothing stays allocated, and what is put into the stream next is not disturbed by
// what was left in it.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/stream_emulated.h"
#include "tests/runtime/both_backends.h"

namespace kvc::runtime {
namespace {

constexpr int64_t kPrompt = 24;

// A prompt and some tokens, of which one step is captured and one replayed. The logits of the last
// token.
std::vector<float> Generate(Both& both, const CacheSpec& spec) {
  const auto sequence = both.OnDevice(spec);
  std::vector<float> logits = testing::PrefillLast(both.session, *sequence, RandomIds(kPrompt, 5));
  for (const int32_t id : RandomIds(3, 6)) {
    logits = testing::DecodeOne(both.session, *sequence, id);
  }
  return logits;
}

// What a failure says; nothing where there is none.
std::optional<std::string> FailureOf(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kDevice) << error.what();
    return error.what();
  }
  return std::nullopt;
}

// Fails calls 0, stride, 2 stride, ... of a session in turn, and generates again behind each of
// them in another sequence.
template <class Policy>
void ExpectCleanFailures(const Policy& policy, int64_t stride) {
  const size_t used = cuda::UsedBytes();
  {
    Both both("llama");
    const CacheSpec spec = policy(both.processor.geometry());
    const std::vector<float> expected = Generate(both, spec);
    cuda::FailCall(-1);
    EXPECT_EQ(Generate(both, spec), expected);
    const int64_t calls = cuda::CountCalls();
    ASSERT_GT(calls, 100);
    for (int64_t n = 0; n < calls; n += stride) {
      cuda::FailCall(n);
      const auto failure = FailureOf([&] { (void)Generate(both, spec); });
      cuda::FailCall(-1);
      ASSERT_TRUE(failure.has_value()) << n;
      EXPECT_NE(failure->find("call " + std::to_string(n)), std::string::npos) << *failure;
      ASSERT_EQ(Generate(both, spec), expected) << "behind " << *failure;
    }
  }
  EXPECT_EQ(cuda::UsedBytes(), used);
}

TEST(Unwinding, EveryCallOfABudgetedSession) { ExpectCleanFailures(BudgetWithoutTies, 1); }

TEST(Unwinding, CallsOfASessionWithRowsInFewBits) { ExpectCleanFailures(StepTiersWithoutTies, 5); }

// What throws between two calls of the backend leaves the work of the first in the stream.
TEST(Unwinding, PromptsThatAreInterrupted) {
  const size_t used = cuda::UsedBytes();
  {
    Both both("llama");
    int64_t checkpoints = 0;
    int64_t last = -1;
    both.session.set_checkpoint([&] {
      if (checkpoints++ == last) throw Error(ErrorKind::kDevice, "interrupted");
    });
    const CacheSpec spec = StepTiersWithoutTies(both.processor.geometry());
    const std::vector<float> expected = Generate(both, spec);
    const int64_t count = checkpoints;
    ASSERT_GT(count, 1);
    for (int64_t n = 0; n < count; ++n) {
      checkpoints = 0;
      last = n;
      EXPECT_EQ(FailureOf([&] { (void)Generate(both, spec); }), "interrupted") << n;
      last = -1;
      EXPECT_EQ(Generate(both, spec), expected) << n;
    }
  }
  EXPECT_EQ(cuda::UsedBytes(), used);
}

// A session that fails goes with what it has left in the stream; the next one is another.
TEST(Unwinding, SessionsThatGoAtOnce) {
  const auto ids = RandomIds(kPrompt, 5);
  std::vector<float> expected;
  int64_t calls = 0;
  {
    Both both("qwen3-latent");
    cuda::FailCall(-1);
    expected = Generate(both, both.processor.geometry());
    calls = cuda::CountCalls();
  }
  const size_t used = cuda::UsedBytes();
  for (int64_t n = 0; n < calls; n += 17) {
    const auto failure = FailureOf([&] {
      Both both("qwen3-latent");
      cuda::FailCall(n);
      (void)Generate(both, both.processor.geometry());
    });
    cuda::FailCall(-1);
    EXPECT_TRUE(failure.has_value()) << n;
    EXPECT_EQ(cuda::UsedBytes(), used) << n;
  }
  // While the model is loaded.
  for (int64_t n = 0; n < 10; ++n) {
    cuda::FailCall(n);
    EXPECT_TRUE(FailureOf([] { Both both("qwen3-latent"); }).has_value()) << n;
    cuda::FailCall(-1);
    EXPECT_EQ(cuda::UsedBytes(), used) << n;
  }
  Both both("qwen3-latent");
  EXPECT_EQ(Generate(both, both.processor.geometry()), expected);
}

}  // namespace
}  // namespace kvc::runtime
