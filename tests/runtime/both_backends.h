#pragma once
// A golden model on the device's backend and on the processor's, which is the reference.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/row_format.h"
#include "core/cache/scorer_spec.h"
#include "runtime/cache/kv_invariants.h"
#include "runtime/cuda/cuda_backend.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {

// A bundle with a session on each of the two backends.
struct Both {
  explicit Both(const std::string& model, DType dtype = DType::kF32)
      : processor({model.c_str(), "cpu"}, dtype),
        backend(std::make_shared<CudaBackend>(processor.pool)),
        session(processor.bundle, backend) {}

  std::unique_ptr<Sequence> OnDevice(const CacheSpec& spec,
                                     DecodePolicy policy = DecodePolicy::kReallocate) {
    SequenceOptions options;
    options.cache = spec;
    options.decode = policy;
    return session.NewSequence(options);
  }

  Loaded processor;
  std::shared_ptr<CudaBackend> backend;
  Session session;
};

inline double Largest(const std::vector<float>& logits) {
  double largest = 0.0;
  for (const float x : logits) largest = std::max<double>(largest, std::abs(x));
  return largest;
}

// What queries and weights are rounded to where they meet 16-bit rows. An int8 element that lies
// between two codes may fall on either, a 127th of the row's largest, in a few elements of a row.
inline double RoundingOf(const RowFormat& format) {
  if (format == kRowsBF16) return 1.0 / 256;
  return format == kRowsF16 || format == kRowsInt8 ? 1.0 / 2048 : 1e-5;
}

// A prompt and the tokens after it, on both; logits may differ by a few roundings of what the
// device multiplies.
inline void ExpectAlike(Both& both,
                        const CacheSpec& spec,
                        const std::string& what,
                        DecodePolicy policy = DecodePolicy::kReallocate) {
  const auto expected = both.processor.New(spec, policy);
  const auto actual = both.OnDevice(spec, policy);
  const auto ids = RandomIds(30, 5);
  double rounding = std::max(RoundingOf(spec.key_format), RoundingOf(spec.value_format)) * 8.0;
  for (const Tier& tier : spec.tiers) {
    // The processor rounds queries that meet codes to int8, half a unit being a 254th of the
    // query's largest coordinate; up to 0.033 of the largest logit was seen.
    if (NeedsSteps(tier.value_format.value_or(spec.value_format))) {
      rounding = std::max(rounding, 12.0 / 256.0);
    }
  }
  const auto compare = [&](const std::vector<float>& a, const std::vector<float>& b,
                           const std::string& where) {
    EXPECT_LE(testing::MaxDifference(a, b), rounding * Largest(b)) << what << ", " << where;
  };
  compare(testing::PrefillAll(both.session, *actual, ids),
          testing::PrefillAll(*both.processor.session, *expected, ids), "prompt");
  const auto clone = actual->Clone();
  for (const int32_t id : both.processor.More(20, 30, 6)) {
    const std::vector<float> reference = testing::DecodeOne(*both.processor.session, *expected, id);
    const std::vector<float> logits = testing::DecodeOne(both.session, *actual, id);
    compare(logits, reference, "token " + std::to_string(actual->length()));
    EXPECT_EQ(testing::DecodeOne(both.session, *clone, id), logits) << what;
  }
  EXPECT_EQ(actual->counters().allocated_bytes, expected->counters().allocated_bytes) << what;
  EXPECT_NO_THROW(CheckInvariants(CacheOf(*actual))) << what;
}

// A budget whose scores are not pooled: equal scores of neighbours would leave the choice between
// them to a rounding. With tiers where `basis` is given.
inline CacheSpec BudgetWithoutTies(const CacheSpec& geometry) {
  CacheSpec spec = testing::Policy(geometry, Method::kUniform, ScorerKind::kOutputError, 14, false);
  spec.scorer = ParseScorer("output-error:reduce=mean,pool=1", "");
  return spec;
}
inline CacheSpec TiersWithoutTies(const CacheSpec& geometry, TierBasis basis, bool thin) {
  CacheSpec spec = BudgetWithoutTies(geometry);
  spec.tiers = {{1.0, 1.0}, {1.0, 0.5}, {thin ? 1.0 : 0.25, 0.25}};
  spec.basis = basis;
  spec.bases = testing::RandomBases(geometry, 3);
  return spec;
}
// The same with tiers of codes with steps, and recent rows in eight bits; latents have no steps.
inline CacheSpec StepTiersWithoutTies(const CacheSpec& geometry) {
  CacheSpec spec = TiersWithoutTies(geometry, TierBasis::kOffline, false);
  const bool latents = geometry.layers[0][0].keeps_positions;
  spec.tiers.resize(1);
  for (const RowFormat& format : kStepFormats) {
    spec.tiers.push_back({1.0, 1.0, latents ? std::nullopt : std::optional(format), format});
  }
  if (!latents) spec.recent_format = kRowsX8;
  return spec;
}
// Tiers of mixtures, whose bits differ by column.
inline CacheSpec MixturesWithoutTies(const CacheSpec& geometry) {
  CacheSpec spec = StepTiersWithoutTies(geometry);
  const bool latents = geometry.layers[0][0].keeps_positions;
  spec.tiers.resize(2);
  for (const int32_t quarters : {20, 10, 5}) {
    const RowFormat format = MixedRows(quarters);
    spec.tiers.push_back({1.0, 1.0, latents ? std::nullopt : std::optional(format), format});
  }
  return spec;
}
// Whether some keys of a golden model are too thin for tiers of keys.
inline bool HasThinKeys(const std::string& model) { return model.find('-') != std::string::npos; }

}  // namespace kvc::runtime
