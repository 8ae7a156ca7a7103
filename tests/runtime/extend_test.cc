// Continuing a sequence by several tokens is decoding them one by one, under every policy.

#include <gtest/gtest.h>

#include "runtime/cache/kv_invariants.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::Policy;
using testing::PrefillLast;

std::vector<float> Extend(Session& session,
                          Sequence& sequence,
                          const std::vector<int32_t>& ids,
                          int64_t rows) {
  std::vector<float> logits(static_cast<size_t>(rows * kVocabulary));
  session.Extend(sequence, ids, MatrixF(logits.data(), rows, kVocabulary));
  return logits;
}

// Rows of each block of each group.
std::vector<int64_t> RowsHeld(const Sequence& sequence) {
  std::vector<int64_t> rows;
  const SequenceCache& cache = CacheOf(sequence);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    for (const GroupCache& group : cache.layer(l).groups) {
      for (const CacheBlock& tier : group.tiers) rows.push_back(tier.rows());
      rows.push_back(group.recent.rows());
    }
  }
  return rows;
}

std::vector<CacheSpec> Policies(const CacheSpec& full) {
  std::vector<CacheSpec> specs = {
      full,
      Policy(full, Method::kUniform, ScorerKind::kSnapKv, 16, false),
      Policy(full, Method::kUniform, ScorerKind::kOutputError, 0.5),
      Policy(full, Method::kStreaming, ScorerKind::kStreaming, 14, false),
  };
  if (full.layers[0].size() > 1) {
    specs.push_back(Policy(full, Method::kAda, ScorerKind::kSnapKv, 0.4));
  }
  specs.push_back(Policy(full, Method::kUniform, ScorerKind::kOutputError, 0.5));
  specs.back().tiers = {{1.0, 1.0}, {1.0, 0.5}, {1.0, 0.25}};
  specs.back().bases = testing::RandomBases(full, 3);
  return specs;
}

class ExtendTest : public ::testing::TestWithParam<LayoutCase> {};
INSTANTIATE_TEST_SUITE_P(Models, ExtendTest, ::testing::ValuesIn(LayoutsOnBackends()), LayoutName);
INSTANTIATE_TEST_SUITE_P(
    Windows,
    ExtendTest,
    ::testing::Values("mistral-window", "qwen3-window", "mistral-window-latent", "llama-yarn"),
    LayoutName);

// The logits of every token, the rows that are kept, the bytes, and what comes after.
TEST_P(ExtendTest, IsDecodingOneByOne) {
  Loaded loaded(GetParam());
  const auto prompt = RandomIds(21, 1);
  const auto turn = RandomIds(37, 2);
  for (const CacheSpec& spec : Policies(loaded.geometry())) {
    const auto decoded = loaded.New(spec);
    const auto extended = loaded.New(spec);
    PrefillLast(*loaded.session, *decoded, prompt);
    PrefillLast(*loaded.session, *extended, prompt);
    std::vector<float> expected;
    for (const int32_t id : turn) {
      const auto row = DecodeOne(*loaded.session, *decoded, id);
      expected.insert(expected.end(), row.begin(), row.end());
    }
    const std::string where = std::string(MethodName(spec.method)) + " " + ToString(spec.scorer);
    const auto logits = Extend(*loaded.session, *extended, turn, std::ssize(turn));
    EXPECT_LE(MaxDifference(logits, expected), 1e-4) << where;
    EXPECT_EQ(extended->length(), decoded->length());
    EXPECT_EQ(RowsHeld(*extended), RowsHeld(*decoded)) << where;
    EXPECT_EQ(extended->counters().allocated_bytes, decoded->counters().allocated_bytes) << where;
    // Shares grow layer after layer, not all layers together.
    EXPECT_LE(extended->counters().peak_bytes, decoded->counters().peak_bytes) << where;
    EXPECT_NO_THROW(CheckInvariants(CacheOf(*extended))) << where;
    EXPECT_LE(MaxDifference(DecodeOne(*loaded.session, *extended, 5),
                            DecodeOne(*loaded.session, *decoded, 5)),
              1e-4)
        << where;
  }
}

TEST_P(ExtendTest, AFullCacheIsThePromptOfBoth) {
  Loaded loaded(GetParam());
  const auto all = RandomIds(40, 3);
  const std::vector<int32_t> first(all.begin(), all.begin() + 25);
  const std::vector<int32_t> second(all.begin() + 25, all.end());
  const auto at_once = loaded.session->NewSequence({});
  const auto by_turns = loaded.session->NewSequence({});
  const auto expected = PrefillLast(*loaded.session, *at_once, all);
  PrefillLast(*loaded.session, *by_turns, first);
  EXPECT_LE(MaxDifference(Extend(*loaded.session, *by_turns, second, 1), expected), 1e-3);
}

// Chunks of three tokens are one of all, and threads change no bit.
TEST_P(ExtendTest, ChunksChangeNothing) {
  std::vector<std::vector<float>> logits;
  for (const int64_t chunk : {int64_t{3}, int64_t{512}, int64_t{512}}) {
    Loaded loaded(GetParam(), DType::kF32, logits.size() == 2 ? 1 : 2);
    SequenceOptions options;
    options.cache = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 16, false);
    options.chunk = chunk;
    const auto sequence = loaded.session->NewSequence(options);
    PrefillLast(*loaded.session, *sequence, RandomIds(21, 1));
    logits.push_back(Extend(*loaded.session, *sequence, RandomIds(20, 2), 20));
    const auto last = Extend(*loaded.session, *sequence, RandomIds(5, 4), 1);
    logits.back().insert(logits.back().end(), last.begin(), last.end());
  }
  EXPECT_LE(MaxDifference(logits[0], logits[1]), 1e-4);
  EXPECT_EQ(logits[1], logits[2]);
}

// The prompt is the larger one: from then on the cache has the bytes that it had behind it.
TEST_P(ExtendTest, HoldsTheBudget) {
  Loaded loaded(GetParam());
  const CacheSpec spec = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 9, false);
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(30, 5));
  const int64_t allocated = sequence->counters().allocated_bytes;
  const int64_t peak = sequence->counters().peak_bytes;
  for (const int64_t count : {1, 9, 20}) {
    Extend(*loaded.session, *sequence, RandomIds(count, 6), 1);
    EXPECT_EQ(sequence->counters().allocated_bytes, allocated);
    EXPECT_EQ(sequence->counters().peak_bytes, peak);
  }
}

TEST_P(ExtendTest, AClonesTurnIsItsOwn) {
  Loaded loaded(GetParam());
  const CacheSpec spec =
      Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 16, false);
  const auto shared = loaded.New(spec);
  PrefillLast(*loaded.session, *shared, RandomIds(25, 7));
  const auto clone = shared->Clone();
  const auto other = Extend(*loaded.session, *clone, RandomIds(15, 8), 1);
  const auto again = shared->Clone();
  EXPECT_EQ(Extend(*loaded.session, *again, RandomIds(15, 8), 1), other);
  EXPECT_EQ(shared->length(), 25);
}

// A prompt that was interrupted in any layer is read again as if nothing had been; what was
// continued has the chunks in front.
TEST_P(ExtendTest, ACheckpointInterrupts) {
  Loaded loaded(GetParam());
  Session& session = *loaded.session;
  const auto prompt = RandomIds(21, 1);
  for (const CacheSpec& spec : Policies(loaded.geometry())) {
    SequenceOptions options;
    options.cache = spec;
    options.chunk = 8;
    const auto undisturbed = session.NewSequence(options);
    const auto interrupted = session.NewSequence(options);
    int calls = 0;
    session.set_checkpoint([&] {
      if (++calls == 5) KVC_THROW(kInterrupted, "enough");
    });
    EXPECT_KVC_ERROR(PrefillLast(session, *interrupted, prompt), kInterrupted, "enough");
    EXPECT_EQ(interrupted->length(), 0);
    EXPECT_EQ(PrefillLast(session, *interrupted, prompt),
              PrefillLast(session, *undisturbed, prompt));
    EXPECT_EQ(interrupted->counters().allocated_bytes, undisturbed->counters().allocated_bytes);
    const bool by_chunk = GetParam().backend != "emulator";
    const auto turn = RandomIds(20, 2);
    calls = by_chunk ? 3 : 4 - 16;
    EXPECT_KVC_ERROR(Extend(session, *interrupted, turn, 1), kInterrupted, "enough");
    EXPECT_EQ(interrupted->length(), prompt.size() + (by_chunk ? 8 : 16));
    const int64_t done = interrupted->length() - std::ssize(prompt);
    const std::vector<int32_t> rest(turn.begin() + done, turn.end());
    EXPECT_LE(MaxDifference(Extend(session, *interrupted, rest, 1),
                            Extend(session, *undisturbed, turn, 1)),
              1e-4);
    session.set_checkpoint([] {});
  }
}

TEST(Extend, RefusesWhatMakesNoSense) {
  Loaded loaded("gpt2");
  const auto sequence = loaded.session->NewSequence({});
  Session& session = *loaded.session;
  EXPECT_KVC_ERROR(Extend(session, *sequence, {1}, 1), kUsage, "got an empty one; prefill it");
  PrefillLast(session, *sequence, RandomIds(20, 1));
  EXPECT_KVC_ERROR(Extend(session, *sequence, {}, 1), kBadInput, "expected 1 to ");
  EXPECT_KVC_ERROR(Extend(session, *sequence, {1, kVocabulary}, 1), kBadInput, "token 1");
  EXPECT_KVC_ERROR(Extend(session, *sequence, RandomIds(3, 1), 2), kBadShape, "logits [1 or 3");
  const int64_t room = session.context_length() - 20;
  EXPECT_KVC_ERROR(Extend(session, *sequence, RandomIds(room + 1, 1), 1), kBadInput, "shorten it");
  EXPECT_EQ(sequence->length(), 20);
  EXPECT_NO_THROW(Extend(session, *sequence, RandomIds(room, 1), 1));
  EXPECT_EQ(sequence->length(), session.context_length());
}

}  // namespace
}  // namespace kvc::runtime
