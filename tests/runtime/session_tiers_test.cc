// Sequences of golden models with narrow tiers, in random coordinates.

#include <array>
#include <numeric>

#include <gtest/gtest.h>

#include "runtime/cache/kv_invariants.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::PrefillLast;

// More of values than of keys, which models with random weights hardly look at: random directions
// approximate nothing well, so that narrower tiers would stay empty.
std::vector<Tier> TiersFor(const CacheSpec& geometry) {
  int64_t narrowest = 8;
  for (const auto& groups : geometry.layers) {
    for (const CacheGroup& group : groups) narrowest = std::min(narrowest, group.key_width);
  }
  const double least = 1.0 / static_cast<double>(narrowest);
  return {{1.0, 1.0}, {std::max(least, 0.75), 1.0}, {least, 1.0}, {least, 0.75}};
}

constexpr std::array<TierBasis, 2> kBases = {TierBasis::kOffline, TierBasis::kPrompt};

CacheSpec Mixed(const CacheSpec& geometry,
                double budget,
                bool by_share = true,
                const ScorerSpec& scorer = ScorerKind::kOutputError) {
  CacheSpec spec = testing::Policy(geometry, Method::kUniform, scorer.kind, budget, by_share);
  spec.scorer = scorer;
  spec.tiers = TiersFor(geometry);
  spec.bases = testing::RandomBases(geometry, 7);
  return spec;
}

// Bytes of a row of full width, and of the narrowest tier's, summed over all groups.
std::array<int64_t, 2> RowBytes(const Sequence& sequence) {
  std::array<int64_t, 2> bytes = {};
  const SequenceCache& cache = CacheOf(sequence);
  for (int64_t l = 0; l < cache.spec().num_layers(); ++l) {
    for (int64_t n = 0; n < std::ssize(cache.spec().layers[l]); ++n) {
      bytes[0] += ShapeOf(cache.spec(), l, n, 0).BytesPerRow();
      bytes[1] += ShapeOf(cache.spec(), l, n, std::ssize(cache.spec().tiers) - 1).BytesPerRow();
    }
  }
  return bytes;
}

class EveryLayoutMixed : public ::testing::TestWithParam<LayoutCase> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutMixed,
                         ::testing::ValuesIn(LayoutsOnBackends()),
                         LayoutName);

// How far logits, which are at most 30 or so, may lie from those of a full cache. On a device rows
// of several widths are read on tensor cores, in sums of two bf16 numbers (2^-15 of a product),
// where rows of one width in f32 are read in float.
double ToleranceOn(const LayoutCase& layout) { return layout.backend == "emulator" ? 1e-3 : 1e-4; }

TEST_P(EveryLayoutMixed, AllTokensAtFullWidthChangeNothing) {
  Loaded loaded(GetParam());
  const auto ids = RandomIds(48, 3);
  const auto full = loaded.session->NewSequence({});
  PrefillLast(*loaded.session, *full, ids);
  std::vector<std::unique_ptr<Sequence>> kept;
  for (const TierBasis basis : kBases) {
    CacheSpec spec = Mixed(loaded.geometry(), 1.0);
    spec.basis = basis;
    kept.push_back(loaded.New(spec));
    PrefillLast(*loaded.session, *kept.back(), ids);
  }
  for (const int32_t id : loaded.More(20, 48, 4)) {
    const std::vector<float> expected = DecodeOne(*loaded.session, *full, id);
    for (const auto& sequence : kept) {
      EXPECT_LE(MaxDifference(DecodeOne(*loaded.session, *sequence, id), expected),
                ToleranceOn(GetParam()));
    }
  }
}

// Latents in the coordinates of bases, from which keys are rebuilt.
TEST(SessionTiers, LatentsInCoordinatesChangeNothing) {
  for (const char* model : {"llama-latent", "qwen3-latent"}) {
    Loaded loaded({model, "cpu"});
    CacheSpec spec = Mixed(loaded.geometry(), 1.0);
    spec.bases = testing::RandomBases(loaded.geometry(), 5, true);
    const auto full = loaded.session->NewSequence({});
    const auto kept = loaded.New(spec);
    const auto ids = RandomIds(48, 3);
    PrefillLast(*loaded.session, *full, ids);
    PrefillLast(*loaded.session, *kept, ids);
    EXPECT_EQ(CacheOf(*kept).layer(0).groups[0].tiers.size(), spec.tiers.size());
    for (const int32_t id : loaded.More(20, 48, 4)) {
      const std::vector<float> expected = DecodeOne(*loaded.session, *full, id);
      EXPECT_LE(MaxDifference(DecodeOne(*loaded.session, *kept, id), expected), 2e-4) << model;
    }
  }
}

TEST_P(EveryLayoutMixed, AllocatesWhatWasPromised) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Loaded loaded(GetParam(), dtype);
    int64_t narrow = 0;
    for (const ScorerSpec& scorer :
         {ScorerSpec(ScorerKind::kOutputError), ScorerSpec(ScorerKind::kSnapKv),
          ParseScorer("output-error:reduce=mean,pool=1", "")}) {
      CacheSpec spec = Mixed(loaded.geometry(), 0.4, true, scorer);
      spec.budget[0][0] = 0.7;  // ragged
      if (scorer.kind == ScorerKind::kSnapKv) spec.basis = TierBasis::kPrompt;
      for (const int64_t length : {1, 2, 5, 10, 11, 48}) {
        const auto sequence = loaded.New(spec);
        PrefillLast(*loaded.session, *sequence, RandomIds(length, 1));
        const int64_t promised = PredictBytes(spec, length).allocated;
        const CacheCounters counters = sequence->counters();
        const std::string where = ToString(scorer) + " length " + std::to_string(length);
        EXPECT_LE(counters.allocated_bytes, promised) << where;
        EXPECT_GT(counters.allocated_bytes, promised - RowBytes(*sequence)[0]) << where;
        EXPECT_LE(counters.logical_bytes, counters.allocated_bytes) << where;
        EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence))) << where;
      }
      const auto sequence = loaded.New(spec);
      PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
      const std::vector<int64_t> tokens = sequence->counters().tier_tokens;
      ASSERT_EQ(tokens.size(), 5U);
      int64_t groups = 0;
      for (const auto& layer : spec.layers) groups += std::ssize(layer);
      EXPECT_EQ(std::accumulate(tokens.begin(), tokens.end(), int64_t{0}), 48 * groups);
      narrow += tokens[1] + tokens[2] + tokens[3];
    }
    EXPECT_GT(narrow, 0) << "all tiers but the first were empty: nothing was tested";
  }
}

// Policies that differ in one thing each, so that scores shared by the wrong ones would show.
std::vector<CacheSpec> Neighbours(const CacheSpec& geometry) {
  std::vector<CacheSpec> specs;
  const auto add = [&](Method method, ScorerKind scorer, double budget) -> CacheSpec& {
    return specs.emplace_back(testing::Policy(geometry, method, scorer, budget));
  };
  add(Method::kUniform, ScorerKind::kSnapKv, 0.4);
  add(Method::kUniform, ScorerKind::kSnapKv, 0.6);
  add(Method::kAda, ScorerKind::kSnapKv, 0.4);
  add(Method::kUniform, ScorerKind::kSnapKv, 0.4).window += 3;
  add(Method::kUniform, ScorerKind::kSnapKv, 0.4).sinks += 3;
  add(Method::kUniform, ScorerKind::kSnapKv, 0.4).scorer.options.pool = 3;
  add(Method::kUniform, ScorerKind::kOutputError, 0.4);
  add(Method::kAdaModel, ScorerKind::kOutputError, 0.4);
  add(Method::kStreaming, ScorerKind::kStreaming, 0.4);
  specs.push_back(Mixed(geometry, 0.4));
  specs.push_back(Mixed(geometry, 0.6));
  specs.push_back(Mixed(geometry, 0.4));
  specs.back().tiers.pop_back();
  specs.push_back(Mixed(geometry, 0.4));
  specs.back().bases = testing::RandomBases(geometry, 8);
  specs.push_back(Mixed(geometry, 0.4));
  specs.back().basis = TierBasis::kPrompt;
  return specs;
}

TEST_P(EveryLayoutMixed, OnePrefillForAllKeepsWhatEachKeepsAlone) {
  Loaded loaded(GetParam());
  const auto ids = RandomIds(48, 9);
  const std::vector<CacheSpec> specs = Neighbours(loaded.geometry());
  const auto together = loaded.PrefillTogether(specs, ids).sequences;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto& sequence = together[i];
    const auto alone = loaded.New(specs[i]);
    PrefillLast(*loaded.session, *alone, ids);
    EXPECT_EQ(alone->counters().allocated_bytes, sequence->counters().allocated_bytes);
    for (const int32_t id : loaded.More(3, 48, 10)) {
      EXPECT_EQ(DecodeOne(*loaded.session, *alone, id), DecodeOne(*loaded.session, *sequence, id));
    }
    EXPECT_GT(sequence->counters().choosing_seconds, 0.0);
  }
}

TEST_P(EveryLayoutMixed, ALongGenerationHoldsTheBudget) {
  Loaded loaded(GetParam());
  for (const bool by_share : {false, true}) {
    const CacheSpec spec = Mixed(loaded.geometry(), by_share ? 0.5 : 20, by_share);
    const auto sequence = loaded.New(spec);
    PrefillLast(*loaded.session, *sequence, RandomIds(30, 5));
    int64_t promised = PredictBytes(spec, 30).allocated;
    for (const int32_t id : loaded.More(60, 30, 6)) {
      const bool reallocates = CacheOf(*sequence).layer(0).groups[0].recent.full();
      if (reallocates) promised = PredictBytes(spec, sequence->length()).allocated;
      DecodeOne(*loaded.session, *sequence, id);
      ASSERT_LE(sequence->counters().allocated_bytes, promised) << sequence->length();
      ASSERT_GT(sequence->counters().allocated_bytes, promised - RowBytes(*sequence)[0]);
      ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    }
  }
}

TEST_P(EveryLayoutMixed, ClonesBatchesAndSharedPromptsAreTheSequenceItself) {
  Loaded loaded(GetParam());
  CacheSpec spec = Mixed(loaded.geometry(), 18, false, ScorerKind::kSnapKv);
  spec.basis = TierBasis::kPrompt;
  const CacheSpec whole =
      testing::Policy(loaded.geometry(), Method::kUniform, ScorerKind::kSnapKv, 18, false);
  const auto prompt = RandomIds(30, 7);
  const auto alone = loaded.New(spec);
  PrefillLast(*loaded.session, *alone, prompt);
  const auto one = loaded.New(spec);
  const auto two = loaded.New(whole);
  const auto other = loaded.New(whole);
  PrefillLast(*loaded.session, *other, prompt);
  std::vector<float> logits(kVocabulary);
  std::vector<Sequence*> both = {two.get(), one.get()};
  loaded.session->Prefill(both, prompt, MatrixF(logits.data(), 1, kVocabulary));
  const auto clone = one->Clone();
  EXPECT_EQ(clone->counters().allocated_bytes, alone->counters().allocated_bytes);
  for (const int32_t id : loaded.More(25, 30, 8)) {
    std::vector<float> rows(2 * kVocabulary);
    const std::vector<int32_t> ids = {id, id};
    loaded.session->Decode(both, ids, MatrixF(rows.data(), 2, kVocabulary));
    const std::vector<float> mixed(rows.begin() + kVocabulary, rows.end());
    rows.resize(kVocabulary);
    const std::vector<float> expected = DecodeOne(*loaded.session, *alone, id);
    EXPECT_LE(MaxDifference(mixed, expected), 1e-4);
    EXPECT_LE(MaxDifference(rows, DecodeOne(*loaded.session, *other, id)), 1e-4);
    EXPECT_EQ(DecodeOne(*loaded.session, *clone, id), expected);
  }
}

TEST_P(EveryLayoutMixed, ThreadsChangeNoBit) {
  std::vector<std::vector<float>> logits;
  for (const int threads : {1, 2}) {
    Loaded loaded(GetParam(), DType::kF32, threads);
    const auto sequence = loaded.New(Mixed(loaded.geometry(), 0.4));
    logits.push_back(PrefillLast(*loaded.session, *sequence, RandomIds(48, 1)));
    for (const int32_t id : RandomIds(12, 2)) {
      const auto row = DecodeOne(*loaded.session, *sequence, id);
      logits.back().insert(logits.back().end(), row.begin(), row.end());
    }
  }
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(SessionTiers, KeysAndValuesHaveListsOfTheirOwn) {
  Loaded loaded("llama");
  CacheSpec spec = Mixed(loaded.geometry(), 0.4);
  spec.tiers = {{1.0, 1.0}, {1.0, 0.5}, {0.25, 1.0}, {0.25, 0.5}};
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
  for (const int32_t id : RandomIds(40, 2)) {
    DecodeOne(*loaded.session, *sequence, id);
    ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    ASSERT_LE(sequence->counters().allocated_bytes,
              PredictBytes(spec, sequence->length()).allocated);
  }
}

TEST(SessionTiers, ThresholdsOfEachPrompt) {
  Loaded loaded("llama");
  for (const Method method : {Method::kAda, Method::kAdaModel}) {
    CacheSpec spec = Mixed(loaded.geometry(), 0.5);
    spec.method = method;
    const auto sequence = loaded.New(spec);
    PrefillLast(*loaded.session, *sequence, RandomIds(48, 1));
    EXPECT_LE(sequence->counters().allocated_bytes, PredictBytes(spec, 48).allocated);
    for (const int32_t id : RandomIds(40, 6)) {
      DecodeOne(*loaded.session, *sequence, id);
      ASSERT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    }
  }
}

TEST(SessionTiers, RefusesWhatMakesNoSense) {
  Loaded loaded("llama");
  CacheSpec spec = Mixed(loaded.geometry(), 0.5);
  spec.bases = nullptr;
  EXPECT_KVC_ERROR(loaded.New(spec), kBadInput, "export it with a profile that has bases");
  spec = Mixed(loaded.geometry(), 0.5);
  spec.tiers.push_back({0.001, 0.25});
  EXPECT_KVC_ERROR(loaded.New(spec), kBadInput, "got 0.001 of keys");
  for (const ScorerKind kind : {ScorerKind::kKeyDiff, ScorerKind::kKnorm, ScorerKind::kStreaming}) {
    EXPECT_KVC_ERROR(loaded.New(Mixed(loaded.geometry(), 0.5, true, kind)), kUnsupported,
                     "scores are losses");
  }
  spec = Mixed(loaded.geometry(), 0.5);
  spec.query_ring = 0;
  EXPECT_KVC_ERROR(loaded.New(spec), kBadInput, "query_ring");
  spec = Mixed(loaded.geometry(), 0.5);
  auto bases = *spec.bases;
  bases.pop_back();
  spec.bases = std::make_shared<const std::vector<LayerBases>>(bases);
  EXPECT_KVC_ERROR(loaded.New(spec), kBadShape, "layers");
}

}  // namespace
}  // namespace kvc::runtime
