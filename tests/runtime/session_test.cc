// Sequences of golden models under every policy: bytes, clones, batches, threads, edge lengths.

#include "runtime/session.h"

#include <gtest/gtest.h>

#include "core/cache/manifest.h"
#include "runtime/cache/kv_invariants.h"
#include "tests/runtime/loaded.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::Policy;
using testing::PrefillAll;
using testing::PrefillLast;

class EveryLayout : public ::testing::TestWithParam<LayoutCase> {};
INSTANTIATE_TEST_SUITE_P(Models, EveryLayout, ::testing::ValuesIn(LayoutsOnBackends()), LayoutName);
INSTANTIATE_TEST_SUITE_P(
    Rotations,
    EveryLayout,
    ::testing::Values("llama-yarn", "stablelm", "smollm3-latent", "stablelm-latent", "olmo2"),
    LayoutName);

TEST_P(EveryLayout, AllocatedBytesAreThePredicted) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Loaded loaded(GetParam(), dtype);
    const CacheSpec full = loaded.geometry();
    std::vector<CacheSpec> specs = {
        full,
        Policy(full, Method::kStreaming, ScorerKind::kStreaming, 14, false),
        Policy(full, Method::kUniform, ScorerKind::kSnapKv, 0.4),
        Policy(full, Method::kUniform, ScorerKind::kOutputError, 0.4),
        Policy(full, Method::kUniform, ScorerKind::kKeyDiff, 1.0),
        Policy(full, Method::kUniform, ScorerKind::kKnorm, 12, false)};
    specs.push_back(Policy(full, Method::kLuKv, ScorerKind::kSnapKv, 0.4));
    specs.back().budget[0][0] = 0.9;  // ragged
    if (QueriesCanTurn(GetParam())) {
      specs.push_back(Policy(full, Method::kUniform, ScorerKind::kExpectedAttention, 0.5));
    }
    for (const CacheSpec& spec : specs) {
      for (const int64_t length : {1, 2, 5, 7, 10, 11, 48}) {
        const auto sequence = loaded.New(spec);
        PrefillLast(*loaded.session, *sequence, RandomIds(length, 1));
        const CacheBytes expected = PredictBytes(spec, length);
        const CacheCounters counters = sequence->counters();
        const std::string where = std::string(MethodName(spec.method)) + " " +
                                  ToString(spec.scorer) + " length " + std::to_string(length);
        EXPECT_EQ(counters.allocated_bytes, expected.allocated) << where;
        EXPECT_EQ(counters.logical_bytes, expected.logical) << where;
        EXPECT_EQ(counters.full_bytes, expected.full) << where;
        EXPECT_GE(counters.peak_bytes, counters.allocated_bytes) << where;
        EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence))) << where;
      }
    }
  }
}

TEST_P(EveryLayout, ABudgetForEverythingChangesNothing) {
  Loaded loaded(GetParam());
  const auto ids = RandomIds(48, 3);
  const auto full = loaded.session->NewSequence({});
  const auto kept =
      loaded.New(Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 1.0));
  PrefillLast(*loaded.session, *full, ids);
  PrefillLast(*loaded.session, *kept, ids);
  for (const int32_t id : loaded.More(20, 48, 4)) {
    EXPECT_LE(
        MaxDifference(DecodeOne(*loaded.session, *full, id), DecodeOne(*loaded.session, *kept, id)),
        1e-3);
  }
}

TEST_P(EveryLayout, ALongGenerationHoldsTheBudget) {
  Loaded loaded(GetParam());
  const CacheSpec spec =
      Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 20, false);
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(30, 5));
  const int64_t allocated = sequence->counters().allocated_bytes;
  for (const int32_t id : loaded.More(60, 30, 6)) {
    DecodeOne(*loaded.session, *sequence, id);
    ASSERT_EQ(sequence->counters().allocated_bytes, allocated) << sequence->length();
    ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
  }
  EXPECT_EQ(PredictBytes(spec, sequence->length()).allocated, allocated);
}

TEST_P(EveryLayout, AShareGrowsWithTheLength) {
  Loaded loaded(GetParam());
  const CacheSpec spec = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kKeyDiff, 0.5);
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(9, 5));
  int64_t layouts = 0;
  for (const int32_t id : loaded.More(80, 9, 6)) {
    const bool reallocates = CacheOf(*sequence).layer(0).groups[0].recent.full();
    const int64_t length = sequence->length();
    DecodeOne(*loaded.session, *sequence, id);
    ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    if (!reallocates) continue;
    ++layouts;
    EXPECT_EQ(sequence->counters().allocated_bytes, PredictBytes(spec, length).allocated);
  }
  EXPECT_GT(layouts, 10);
}

TEST_P(EveryLayout, AppendKeepsWhatComesAfterThePrompt) {
  Loaded loaded(GetParam());
  const CacheSpec spec =
      Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 14, false);
  const auto sequence = loaded.New(spec, DecodePolicy::kAppend);
  PrefillLast(*loaded.session, *sequence, RandomIds(30, 5));
  const int64_t rows = CacheOf(*sequence).layer(1).groups[0].rows();
  const auto ids = loaded.More(90, 30, 6);
  for (const int32_t id : ids) DecodeOne(*loaded.session, *sequence, id);
  EXPECT_EQ(CacheOf(*sequence).layer(1).groups[0].rows(), rows + std::ssize(ids));
  EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
}

TEST_P(EveryLayout, ACloneGoesItsOwnWay) {
  Loaded loaded(GetParam());
  for (const bool full : {true, false}) {
    const CacheSpec spec =
        full ? loaded.geometry()
             : Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 16, false);
    const auto one = loaded.New(spec);
    const auto two = loaded.New(spec);
    const auto prompt = RandomIds(25, 7);
    PrefillLast(*loaded.session, *one, prompt);
    PrefillLast(*loaded.session, *two, prompt);
    DecodeOne(*loaded.session, *one, 5);
    DecodeOne(*loaded.session, *two, 5);
    const auto clone = one->Clone();
    EXPECT_EQ(clone->length(), 26);
    EXPECT_EQ(clone->counters().allocated_bytes, one->counters().allocated_bytes);
    EXPECT_GE(clone->counters().peak_bytes, one->counters().peak_bytes);
    // The original goes elsewhere; the clone continues as the sequence that was never cloned.
    for (const int32_t id : RandomIds(15, 8)) DecodeOne(*loaded.session, *one, id);
    for (const int32_t id : RandomIds(15, 9)) {
      EXPECT_EQ(DecodeOne(*loaded.session, *clone, id), DecodeOne(*loaded.session, *two, id));
    }
    EXPECT_NO_THROW(CheckInvariants(CacheOf(*clone)));
  }
}

TEST_P(EveryLayout, RefusesScorersThatTurnQueriesThatCannot) {
  Loaded loaded(GetParam());
  const CacheSpec spec =
      Policy(loaded.geometry(), Method::kUniform, ScorerKind::kExpectedAttention, 0.5);
  if (QueriesCanTurn(GetParam())) {
    EXPECT_NO_THROW((void)loaded.New(spec));
    return;
  }
  try {
    (void)loaded.New(spec);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUnsupported) << error.what();
    EXPECT_NE(std::string(error.what()).find("expected-attention"), std::string::npos);
  }
}

// Policies that share a prefill have what each would have alone.
TEST_P(EveryLayout, OnePrefillServesSeveralPolicies) {
  Loaded loaded(GetParam());
  const CacheSpec full = loaded.geometry();
  const ScorerKind by_prompt =
      QueriesCanTurn(GetParam()) ? ScorerKind::kExpectedAttention : ScorerKind::kKeyDiff;
  const std::vector<CacheSpec> specs = {
      Policy(full, Method::kUniform, ScorerKind::kOutputError, 14, false), full,
      Policy(full, Method::kUniform, by_prompt, 16, false),
      Policy(full, Method::kUniform, ScorerKind::kSnapKv, 12, false)};
  const auto prompt = RandomIds(30, 17);
  const auto [together, logits] = loaded.PrefillTogether(specs, prompt);
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto alone = loaded.New(specs[i]);
    EXPECT_EQ(PrefillLast(*loaded.session, *alone, prompt), logits);
    EXPECT_EQ(together[i]->counters().allocated_bytes, alone->counters().allocated_bytes);
    EXPECT_EQ(together[i]->counters().peak_bytes, alone->counters().peak_bytes);
    for (const int32_t id : RandomIds(15, 18)) {
      EXPECT_EQ(DecodeOne(*loaded.session, *together[i], id),
                DecodeOne(*loaded.session, *alone, id));
    }
    EXPECT_NO_THROW(CheckInvariants(CacheOf(*together[i])));
  }
}

TEST_P(EveryLayout, ABatchIsItsSequences) {
  Loaded loaded(GetParam());
  const CacheSpec policy =
      Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 14, false);
  const std::vector<int64_t> lengths = {1, 20, 6, 33};
  std::vector<std::unique_ptr<Sequence>> alone, together;
  for (size_t b = 0; b < lengths.size(); ++b) {
    const CacheSpec& spec = b == 3 ? loaded.geometry() : policy;
    alone.push_back(loaded.New(spec));
    together.push_back(loaded.New(spec));
    PrefillLast(*loaded.session, *alone[b], RandomIds(lengths[b], b));
    PrefillLast(*loaded.session, *together[b], RandomIds(lengths[b], b));
  }
  std::vector<Sequence*> batch;
  for (const auto& sequence : together) batch.push_back(sequence.get());
  for (int step = 0; step < 12; ++step) {
    const auto ids = RandomIds(4, 100 + step);
    std::vector<float> logits(4 * kVocabulary);
    loaded.session->Decode(batch, ids, MatrixF(logits.data(), 4, kVocabulary));
    for (size_t b = 0; b < 4; ++b) {
      const std::vector<float> row(logits.begin() + static_cast<int64_t>(b) * kVocabulary,
                                   logits.begin() + static_cast<int64_t>(b + 1) * kVocabulary);
      EXPECT_LE(MaxDifference(row, DecodeOne(*loaded.session, *alone[b], ids[b])), 1e-4)
          << "step " << step << ", sequence " << b;
    }
  }
}

TEST_P(EveryLayout, ThreadsChangeNoBit) {
  std::vector<std::vector<float>> logits;
  for (const int threads : {1, 2}) {
    Loaded loaded(GetParam(), DType::kF32, threads);
    const auto sequence =
        loaded.New(Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 0.4));
    logits.push_back(PrefillAll(*loaded.session, *sequence, RandomIds(48, 1)));
    for (const int32_t id : RandomIds(12, 2)) {
      const auto row = DecodeOne(*loaded.session, *sequence, id);
      logits.back().insert(logits.back().end(), row.begin(), row.end());
    }
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(Session, PrefillPeakIsOneLayerAndTheCompressedRest) {
  Loaded loaded("llama");
  const CacheSpec spec = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kKnorm, 12, false);
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
  int64_t layer_bytes = 0;  // of a full layer
  for (const CacheGroup& group : spec.layers[0]) layer_bytes += 48 * BytesPerToken(spec, group);
  const CacheCounters counters = sequence->counters();
  EXPECT_LE(counters.peak_bytes, layer_bytes + counters.allocated_bytes);
  EXPECT_GE(counters.peak_bytes, layer_bytes);
}

TEST(Session, RefusesWhatItCannotRun) {
  Loaded loaded("llama");
  Session& session = *loaded.session;
  std::vector<float> logits(kVocabulary);
  const MatrixF row(logits.data(), 1, kVocabulary);
  const auto sequence = session.NewSequence({});
  const std::vector<int32_t> bad = {3, kVocabulary};
  EXPECT_KVC_ERROR(session.Prefill(*sequence, bad, row), kBadInput, "token 1");
  EXPECT_KVC_ERROR(session.Prefill(*sequence, {}, row), kBadInput, "prompt");
  const int64_t context = loaded.bundle->manifest().model.context_length;
  EXPECT_KVC_ERROR(session.Prefill(*sequence, RandomIds(context + 1, 1), row), kBadInput,
                   "shorten");
  EXPECT_KVC_ERROR(DecodeOne(session, *sequence, 1), kUsage, "prompt");
  session.Prefill(*sequence, RandomIds(context, 1), row);
  EXPECT_KVC_ERROR(session.Prefill(*sequence, RandomIds(2, 1), row), kUsage, "empty sequence");
  EXPECT_KVC_ERROR(DecodeOne(session, *sequence, 1), kBadInput, "at most");
  CacheSpec other = loaded.geometry();
  other.layers[1][0].key_width -= 1;
  EXPECT_KVC_ERROR(loaded.New(other), kBadShape, "widths");
  CacheSpec blind = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 0.5);
  blind.query_ring = 0;
  EXPECT_KVC_ERROR(loaded.New(blind), kBadInput, "query_ring");
  EXPECT_NO_THROW(loaded.New(blind, DecodePolicy::kAppend));
}

TEST(Session, ReserveAllocatesOnce) {
  Loaded loaded("llama");
  SequenceOptions options;
  options.reserve = 60;
  const auto sequence = loaded.session->NewSequence(options);
  PrefillLast(*loaded.session, *sequence, RandomIds(10, 1));
  const int64_t allocated = sequence->counters().allocated_bytes;
  EXPECT_EQ(allocated, PredictBytes(loaded.geometry(), 60).allocated);
  for (const int32_t id : RandomIds(50, 2)) DecodeOne(*loaded.session, *sequence, id);
  EXPECT_EQ(sequence->counters().allocated_bytes, allocated);
  EXPECT_EQ(sequence->counters().peak_bytes, allocated);
}

}  // namespace
}  // namespace kvc::runtime
