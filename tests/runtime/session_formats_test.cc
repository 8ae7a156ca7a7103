// Sequences of golden models whose keys, values and tiers lie in formats of their own.

#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "runtime/cache/kv_invariants.h"
#include "runtime/cpu/latent_coordinates.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::Policy;
using testing::PrefillLast;

CacheSpec In(CacheSpec spec, const RowFormat& keys, const RowFormat& values) {
  spec.key_format = keys;
  spec.value_format = values;
  return spec;
}

std::string Text(const CacheSpec& spec) {
  return std::string(RowFormatName(spec.key_format)) + " keys, " +
         std::string(RowFormatName(spec.value_format)) + " values, " +
         std::string(MethodName(spec.method));
}

class EveryLayoutFormats : public ::testing::TestWithParam<LayoutCase> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutFormats,
                         ::testing::ValuesIn(LayoutsOnBackends()),
                         LayoutName);

TEST_P(EveryLayoutFormats, AllocatedBytesAreThePredicted) {
  Loaded loaded(GetParam());
  const CacheSpec& full = loaded.geometry();
  for (const RowFormat& keys : {kRowsF32, kRowsInt8}) {
    for (const RowFormat& values : {kRowsBF16, kRowsInt8}) {
      for (const CacheSpec& policy :
           {full, Policy(full, Method::kUniform, ScorerKind::kSnapKv, 0.4),
            Policy(full, Method::kStreaming, ScorerKind::kStreaming, 14, false)}) {
        const CacheSpec spec = In(policy, keys, values);
        for (const int64_t length : {1, 7, 11, 48}) {
          const auto sequence = loaded.New(spec);
          PrefillLast(*loaded.session, *sequence, RandomIds(length, 1));
          const CacheBytes expected = PredictBytes(spec, length);
          const CacheCounters counters = sequence->counters();
          const std::string where = Text(spec) + ", length " + std::to_string(length);
          EXPECT_EQ(counters.allocated_bytes, expected.allocated) << where;
          EXPECT_EQ(counters.logical_bytes, expected.logical) << where;
          EXPECT_EQ(counters.full_bytes, OriginalBytesPerToken(full) * length) << where;
          EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence))) << where;
        }
      }
    }
  }
}

// The models' logits are at most 30 or so; eight bits round each number by 0.4 % of the row's
// largest.
TEST_P(EveryLayoutFormats, EightBitsStayCloseToFloat) {
  Loaded loaded(GetParam());
  const auto ids = RandomIds(40, 3);
  for (const bool budgeted : {false, true}) {
    const CacheSpec spec =
        budgeted ? Policy(loaded.geometry(), Method::kUniform, ScorerKind::kKnorm, 1.0)
                 : loaded.geometry();
    const auto exact = loaded.New(spec);
    const auto coarse = loaded.New(In(spec, kRowsInt8, kRowsInt8));
    PrefillLast(*loaded.session, *exact, ids);
    PrefillLast(*loaded.session, *coarse, ids);
    double largest = 0.0;
    double difference = 0.0;
    for (const int32_t id : loaded.More(8, 40, 4)) {
      const std::vector<float> expected = DecodeOne(*loaded.session, *exact, id);
      difference = std::max<double>(
          difference, MaxDifference(DecodeOne(*loaded.session, *coarse, id), expected));
      for (const float logit : expected) largest = std::max<double>(largest, std::abs(logit));
    }
    EXPECT_GT(difference, 0.0) << "nothing was rounded";
    EXPECT_LE(difference, 0.03 * largest);
  }
}

// Tiers of fewer bits beside tiers of fewer dimensions: more tokens in the same bytes.
CacheSpec BitTiers(const CacheSpec& geometry, double budget) {
  CacheSpec spec = Policy(geometry, Method::kUniform, ScorerKind::kOutputError, budget);
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsInt8, kRowsInt8}, {1.0, 0.5, {}, kRowsInt8}};
  spec.bases = testing::RandomBases(geometry, 7);
  return spec;
}

TEST_P(EveryLayoutFormats, TiersOfFewerBits) {
  Loaded loaded(GetParam());
  for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
    CacheSpec spec = BitTiers(loaded.geometry(), 0.5);
    spec.basis = basis;
    const auto sequence = loaded.New(spec);
    PrefillLast(*loaded.session, *sequence, RandomIds(40, 1));
    const CacheCounters counters = sequence->counters();
    EXPECT_LE(counters.allocated_bytes, PredictBytes(spec, 40).allocated);
    EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    int64_t groups = 0;
    for (const auto& layer : spec.layers) groups += std::ssize(layer);
    // Full width, eight bits, half the values, dropped.
    ASSERT_EQ(counters.tier_tokens.size(), 4U);
    EXPECT_GT(counters.tier_tokens[1], 0);
    const int64_t kept = 40 * groups - counters.tier_tokens[3];
    CacheSpec whole = spec;
    whole.tiers = {{1.0, 1.0}};
    const auto sixteen = loaded.New(whole);
    PrefillLast(*loaded.session, *sixteen, RandomIds(40, 1));
    int64_t rows = 0;
    for (int64_t l = 0; l < whole.num_layers(); ++l) {
      for (const GroupCache& group : CacheOf(*sixteen).layer(l).groups) rows += group.rows();
    }
    EXPECT_GT(kept, rows);
    // Long enough for rows to move from tier to tier.
    for (const int32_t id : loaded.More(8, 40, 4)) {
      const std::vector<float> logits = DecodeOne(*loaded.session, *sequence, id);
      for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
      EXPECT_LE(sequence->counters().allocated_bytes,
                PredictBytes(spec, sequence->length()).allocated);
      EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
    }
  }
}

// Rows in few bits with calibrated steps; the processor has them of latents too.
CacheSpec StepTiers(const CacheSpec& geometry,
                    double budget,
                    const std::vector<RowFormat>& formats = {kRowsX8, kRowsX4, kRowsX2},
                    bool latents_in_bits = false) {
  CacheSpec spec = BitTiers(geometry, budget);
  spec.tiers.resize(1);
  const bool keys = latents_in_bits || !geometry.layers[0][0].keeps_positions;
  for (const RowFormat& format : formats) {
    spec.tiers.push_back({1.0, 1.0, keys ? std::optional(format) : std::nullopt, format});
  }
  if (latents_in_bits) spec.bases = testing::RandomBases(geometry, 7, true);
  return spec;
}

// Prefills 40 tokens and decodes 8 more, with a copy that must do the same.
void ExpectRuns(Loaded& loaded, const CacheSpec& spec) {
  const auto sequence = loaded.New(spec);
  PrefillLast(*loaded.session, *sequence, RandomIds(40, 1));
  const CacheCounters counters = sequence->counters();
  EXPECT_LE(counters.allocated_bytes, PredictBytes(spec, 40).allocated);
  ASSERT_EQ(counters.tier_tokens.size(), 5U);
  EXPECT_GT(counters.tier_tokens[1] + counters.tier_tokens[2] + counters.tier_tokens[3], 0);
  const auto copy = sequence->Clone();
  for (const int32_t id : loaded.More(8, 40, 4)) {
    const std::vector<float> logits = DecodeOne(*loaded.session, *sequence, id);
    for (const float logit : logits) ASSERT_TRUE(std::isfinite(logit));
    EXPECT_EQ(DecodeOne(*loaded.session, *copy, id), logits);
    EXPECT_LE(sequence->counters().allocated_bytes,
              PredictBytes(spec, sequence->length()).allocated);
    EXPECT_NO_THROW(CheckInvariants(CacheOf(*sequence)));
  }
}

TEST_P(EveryLayoutFormats, TiersOfCodesWithSteps) {
  Loaded loaded(GetParam());
  const CacheSpec spec = StepTiers(loaded.geometry(), 0.4);
  ExpectRuns(loaded, spec);
}

TEST_P(EveryLayoutFormats, TiersOfMixtures) {
  Loaded loaded(GetParam());
  CacheSpec spec = StepTiers(loaded.geometry(), 0.4, {kRowsX8, MixedRows(12), MixedRows(5)});
  ExpectRuns(loaded, spec);
  spec.recent_format = kRowsX8;
  if (!spec.layers[0][0].keeps_positions) ExpectRuns(loaded, spec);
}

// Losses depend on a tier's bits: policies of one prompt that differ in them alone share none.
TEST_P(EveryLayoutFormats, TiersOfOtherBitsHaveLossesOfTheirOwn) {
  Loaded loaded(GetParam());
  const std::vector<CacheSpec> specs = {
      StepTiers(loaded.geometry(), 0.4, {kRowsX8, kRowsX4}),
      StepTiers(loaded.geometry(), 0.4, {kRowsX4, kRowsX2}),
  };
  const auto ids = RandomIds(48, 9);
  const auto together = loaded.PrefillTogether(specs, ids).sequences;
  for (size_t i = 0; i < specs.size(); ++i) {
    const auto alone = loaded.New(specs[i]);
    PrefillLast(*loaded.session, *alone, ids);
    EXPECT_EQ(alone->counters().tier_tokens, together[i]->counters().tier_tokens);
    const int32_t id = loaded.More(1, 48, 10)[0];
    EXPECT_EQ(DecodeOne(*loaded.session, *alone, id), DecodeOne(*loaded.session, *together[i], id));
  }
}

// Keys rebuilt from codes of latents, in plain bits and in mixtures; recent rows too.
TEST(SessionFormats, LatentsInFewBits) {
  for (const char* model : {"llama-latent", "qwen3-latent"}) {
    Loaded loaded({model, "cpu"});
    CacheSpec spec = StepTiers(loaded.geometry(), 0.4, {kRowsX8, kRowsX4, kRowsX2}, true);
    ExpectRuns(loaded, spec);
    spec.recent_format = kRowsX8;
    ExpectRuns(loaded, spec);
    ExpectRuns(loaded,
               StepTiers(loaded.geometry(), 0.4, {kRowsX8, MixedRows(12), MixedRows(5)}, true));
  }
}

// An export without tiers rewrites the latents of a float bundle; a profile's coordinates are not
// theirs.
TEST(SessionFormats, RewrittenLatentsHaveNoCoordinates) {
  std::vector<float> unit = {0.0F, 1.0F, 0.5F, 0.25F};
  kernels::KeyRebuild rebuild;
  rebuild.rebuild = {unit.data(), 2, 2};
  rebuild.units = kernels::FindUnitRows(rebuild.rebuild);
  LayerBases bases;
  bases.num_kv_heads = bases.num_key_groups = 1;
  bases.key_width = 2;
  bases.query = {1.0F, 0.0F, 0.0F, 1.0F};
  bases.key_mean = {0.0F, 0.0F};
  EXPECT_KVC_ERROR((void)RebuildsFromCoordinates({&rebuild, 1}, bases, 3), kUnsupported,
                   "layer 3: tiers in few bits");
}

TEST(SessionFormats, CodesNeedTheStepsOfOfflineBases) {
  Loaded loaded("llama");
  CacheSpec prompt = StepTiers(loaded.geometry(), 0.4);
  prompt.basis = TierBasis::kPrompt;
  EXPECT_KVC_ERROR(CheckTiers(prompt), kUnsupported, "--basis offline");
  CacheSpec old = StepTiers(loaded.geometry(), 0.4);
  std::vector<LayerBases> bases = *old.bases;
  for (LayerBases& layer : bases) layer.value_steps.clear();
  for (LayerBases& layer : bases) layer.key_steps.clear();
  old.bases = std::make_shared<const std::vector<LayerBases>>(bases);
  EXPECT_KVC_ERROR((void)loaded.New(old), kUnsupported, "profile with this version");
}

TEST(SessionFormats, OnePrefillHasOneFormat) {
  Loaded loaded("llama");
  const CacheSpec& full = loaded.geometry();
  EXPECT_KVC_ERROR(
      (void)loaded.PrefillTogether({full, In(full, kRowsF32, kRowsInt8)}, RandomIds(9, 1)), kUsage,
      "one cache dtype");
}

}  // namespace
}  // namespace kvc::runtime
