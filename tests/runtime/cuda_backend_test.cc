// The backend of the device, on the emulator, against the processor's, which is the reference.

#include "runtime/cuda/cuda_backend.h"

#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/row_format.h"
#include "core/cache/scorer_spec.h"
#include "kernels/cuda/runtime.h"
#include "kernels/sampling.h"
#include "runtime/memory_need.h"
#include "tests/runtime/both_backends.h"
#include "tests/runtime/random_bases.h"
#include "tests/support/expect_error.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::MaxDifference;
using testing::Policy;
using testing::PrefillLast;

class EveryLayoutOnDevice : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Models,
                         EveryLayoutOnDevice,
                         ::testing::ValuesIn(Layouts()),
                         kvc::testing::ParameterName());
// Rings that go round, tiers inside a window. (Latents in a ring make tables for each step:
// window_test.cc.)
INSTANTIATE_TEST_SUITE_P(Windows,
                         EveryLayoutOnDevice,
                         ::testing::Values("mistral-window", "qwen3-window-post-rope"),
                         kvc::testing::ParameterName());

// Rotations of a part of the head, of some layers, by tables that scale, and by the length.
INSTANTIATE_TEST_SUITE_P(
    Rotations,
    EveryLayoutOnDevice,
    ::testing::Values("stablelm-latent", "smollm3-latent", "llama-yarn-latent", "mistral-longrope"),
    kvc::testing::ParameterName());

TEST_P(EveryLayoutOnDevice, TheFullCacheIsTheProcessors) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Both both(GetParam(), dtype);
    ExpectAlike(both, both.processor.geometry(), "full");
  }
}

// A step like the one before is replayed as a graph; where rows have moved it runs call by call.
TEST_P(EveryLayoutOnDevice, SteadyStepsAreReplayed) {
  Both both(GetParam());
  const CacheSpec full = both.processor.geometry();
  for (const bool budget : {false, true}) {
    const CacheSpec spec =
        budget ? Policy(full, Method::kUniform, ScorerKind::kKnorm, 14, false) : full;
    const auto expected = both.processor.New(spec);
    const auto actual = both.OnDevice(spec);
    PrefillLast(*both.processor.session, *expected, RandomIds(30, 5));
    PrefillLast(both.session, *actual, RandomIds(30, 5));
    const StepCounts before = both.backend->steps();
    const auto ids = RandomIds(16, 6);
    for (const int32_t id : ids) {
      const std::vector<float> reference = DecodeOne(*both.processor.session, *expected, id);
      EXPECT_LE(MaxDifference(DecodeOne(both.session, *actual, id), reference),
                8e-5 * Largest(reference));
    }
    const StepCounts& after = both.backend->steps();
    const int64_t moved = after.one_by_one - before.one_by_one;
    const int64_t captured = after.captured - before.captured;
    const int64_t replayed = after.replayed - before.replayed;
    EXPECT_EQ(moved + captured + replayed, std::ssize(ids));
    EXPECT_GE(captured, 1);
    if (budget) {
      EXPECT_GT(moved, 1) << "the margin of 14 rows is smaller than the text";
    } else {
      EXPECT_EQ(moved, 1);  // the first step makes the tables
      EXPECT_EQ(replayed, std::ssize(ids) - 2);
    }
  }
}

TEST_P(EveryLayoutOnDevice, BudgetsAndTiersAreTheProcessors) {
  Both both(GetParam());
  const CacheSpec geometry = both.processor.geometry();
  ExpectAlike(both, BudgetWithoutTies(geometry), "budget");
  for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
    ExpectAlike(both, TiersWithoutTies(geometry, basis, HasThinKeys(GetParam())), "tiers");
  }
}

TEST_P(EveryLayoutOnDevice, Int8RowsAreTheProcessors) {
  Both both(GetParam());
  CacheSpec spec = both.processor.geometry();
  spec.key_format = kRowsInt8;
  spec.value_format = kRowsInt8;
  ExpectAlike(both, spec, "int8");
}

// What is decoded is kept, and the model is in floats: queries of int8 (the processor's) and
// activations of bf16 move a random model's close decisions.
TEST_P(EveryLayoutOnDevice, RowsInFewBitsAreTheProcessors) {
  Both both(GetParam());
  ExpectAlike(both, StepTiersWithoutTies(both.processor.geometry()), "few bits",
              DecodePolicy::kAppend);
}

TEST_P(EveryLayoutOnDevice, MixturesAreTheProcessors) {
  Both both(GetParam());
  ExpectAlike(both, MixturesWithoutTies(both.processor.geometry()), "mixtures",
              DecodePolicy::kAppend);
}

// Keys are rebuilt from latents' coordinates on the processor alone.
TEST(CudaBackend, RefusesLatentsInCoordinatesByName) {
  Both both("llama-latent");
  CacheSpec spec = StepTiersWithoutTies(both.processor.geometry());
  spec.bases = testing::RandomBases(both.processor.geometry(), 3, true);
  EXPECT_KVC_ERROR((void)both.OnDevice(spec), kUnsupported, "take --device cpu");
}

// Sequences of different lengths and policies share a step.
TEST_P(EveryLayoutOnDevice, ABatchIsItsSequences) {
  Both both(GetParam());
  const CacheSpec full = both.processor.geometry();
  const CacheSpec budget = Policy(full, Method::kUniform, ScorerKind::kKeyDiff, 14, false);
  std::vector<std::unique_ptr<Sequence>> alone, together;
  std::vector<Sequence*> batch;
  for (const auto& [spec, length] :
       {std::pair(full, 7), std::pair(budget, 30), std::pair(full, 1)}) {
    for (auto* list : {&alone, &together}) {
      list->push_back(both.OnDevice(spec));
      PrefillLast(both.session, *list->back(), RandomIds(length, 9));
    }
    batch.push_back(together.back().get());
  }
  std::vector<float> logits(3 * kVocabulary);
  for (int32_t step = 0; step < 12; ++step) {
    const std::vector<int32_t> ids = {step, step + 1, step + 2};
    both.session.Decode(batch, ids, MatrixF(logits.data(), 3, kVocabulary));
    for (size_t b = 0; b < 3; ++b) {
      const std::vector<float> own(logits.begin() + static_cast<int64_t>(b) * kVocabulary,
                                   logits.begin() + static_cast<int64_t>(b + 1) * kVocabulary);
      const std::vector<float> expected = DecodeOne(both.session, *alone[b], ids[b]);
      EXPECT_LE(MaxDifference(own, expected), 1e-5 * Largest(expected)) << step << ", " << b;
    }
  }
}

TEST(CudaBackend, GatedGeluIsTheProcessors) {
  Both both("llama-gelu");
  ExpectAlike(both, both.processor.geometry(), "gelu");
}

// Batches that take turns keep their tables and graphs, as many as there is room for.
TEST(CudaBackend, AlternatingBatchesAreReplayed) {
  Both both("llama");
  const auto steps_of = [&](size_t count, int rounds) {
    std::vector<std::unique_ptr<Sequence>> sequences;
    for (size_t i = 0; i < count; ++i) {
      sequences.push_back(both.OnDevice(both.processor.geometry()));
      PrefillLast(both.session, *sequences[i], RandomIds(2, 3 + i));
    }
    const StepCounts before = both.backend->steps();
    std::vector<std::vector<float>> first;
    for (int32_t round = 0; round < rounds; ++round) {
      for (size_t i = 0; i < count; ++i) {
        const auto logits = DecodeOne(both.session, *sequences[i], round);
        if (round > 1) continue;
        const auto expected = both.processor.New(both.processor.geometry());
        PrefillLast(*both.processor.session, *expected, RandomIds(2, 3 + i));
        std::vector<float> reference;
        for (int32_t t = 0; t <= round; ++t) {
          reference = DecodeOne(*both.processor.session, *expected, t);
        }
        EXPECT_LE(MaxDifference(logits, reference), 8e-5 * Largest(reference)) << i;
      }
    }
    StepCounts steps = both.backend->steps();
    steps.one_by_one -= before.one_by_one;
    steps.captured -= before.captured;
    steps.replayed -= before.replayed;
    return steps;
  };
  const StepCounts three = steps_of(3, 5);
  EXPECT_EQ(three.one_by_one, 3);
  EXPECT_EQ(three.captured, 3);
  EXPECT_EQ(three.replayed, 9);
  const StepCounts many = steps_of(kMostKeptBatches + 1, 2);
  EXPECT_EQ(many.one_by_one, static_cast<int64_t>(2 * (kMostKeptBatches + 1)));
  EXPECT_EQ(many.replayed, 0);
}

// What a cache takes while a prompt is compressed is said before.
TEST(CudaBackend, APromptTakesWhatWasSaid) {
  for (const char* model : {"llama", "qwen3-latent", "gpt2-absorb"}) {
    Both both(model);
    const CacheSpec geometry = both.processor.geometry();
    for (const Method method : {Method::kFull, Method::kUniform}) {
      for (const char* scorer : {"snapkv", "output-error", "knorm"}) {
        CacheSpec spec = geometry;
        if (method != Method::kFull) {
          spec = Policy(geometry, method, ScorerKind::kOutputError, 14, false);
          spec.scorer = ParseScorer(scorer, "");
        }
        for (const int64_t length : {3, 30}) {
          const auto sequence = both.OnDevice(spec);
          PrefillLast(both.session, *sequence, RandomIds(length, 5));
          const bool by_window = method != Method::kFull && scorer != std::string("knorm");
          const PromptCache cache = {&CacheOf(*sequence).spec(), 0,
                                     by_window ? std::max<int64_t>(spec.window, 1) : 0, false};
          EXPECT_EQ(sequence->counters().peak_bytes, PeakCacheBytes(cache, length))
              << model << ", " << scorer << ", " << length;
        }
      }
    }
    for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
      const auto sequence = both.OnDevice(TiersWithoutTies(geometry, basis, HasThinKeys(model)));
      PrefillLast(both.session, *sequence, RandomIds(30, 5));
      const CacheSpec& spec = CacheOf(*sequence).spec();
      EXPECT_LE(sequence->counters().peak_bytes,
                PeakCacheBytes({&spec, 0, spec.window, false}, 30));
    }
  }
}

// Tokens that are drawn on the device are those that the host draws from its logits.
TEST(CudaBackend, TokensAreDrawnAsOnTheHost) {
  Both both("llama");
  for (const kernels::SamplingOptions& options :
       {kernels::SamplingOptions{}, {0.8, 0, 1.0}, {1.3, 20, 1.0}, {0.7, 0, 0.9}}) {
    std::vector<std::unique_ptr<Sequence>> drawn, read;
    std::vector<Sequence*> batch;
    std::vector<Rng> rngs, twins;
    std::vector<Rng*> generators;
    for (uint64_t i = 0; i < 2; ++i) {
      for (auto* list : {&drawn, &read}) {
        list->push_back(both.OnDevice(both.processor.geometry()));
        PrefillLast(both.session, *list->back(), RandomIds(7, i));
      }
      rngs.emplace_back(90 + i);
      twins.emplace_back(90 + i);
    }
    for (size_t i = 0; i < 2; ++i) {
      batch.push_back(drawn[i].get());
      generators.push_back(&rngs[i]);
    }
    std::vector<int32_t> ids = {3, 4};
    for (int step = 0; step < 12; ++step) {
      std::vector<int32_t> next(2);
      both.session.DecodeTokens(batch, ids, options, generators, next);
      for (size_t i = 0; i < 2; ++i) {
        const std::vector<float> logits = DecodeOne(both.session, *read[i], ids[i]);
        EXPECT_EQ(next[i], kernels::SampleToken(logits, options, twins[i])) << step;
      }
      ids = next;
    }
  }
}

TEST(CudaBackend, NothingIsLeftAllocated) {
  const size_t before = cuda::UsedBytes();
  {
    Both both("llama");
    const auto sequence = both.OnDevice(both.processor.geometry());
    PrefillLast(both.session, *sequence, RandomIds(30, 1));
    EXPECT_GT(cuda::UsedBytes(), before);
  }
  EXPECT_EQ(cuda::UsedBytes(), before);
}

TEST(CudaBackend, ADeviceThatThisBuildLacksIsRefused) {
  RuntimeOptions options;
  options.device = cuda::DeviceKind() == "cuda" ? "emulator" : "cuda";
  EXPECT_KVC_ERROR(static_cast<void>(CreateBackend(options)), kDevice, options.device);
}

TEST(CudaBackend, ExactActivationsAreTheProcessors) {
  RuntimeOptions options;
  options.device = std::string(cuda::DeviceKind());
  options.exact = true;
  EXPECT_KVC_ERROR(static_cast<void>(CreateBackend(options)), kUsage, "expected device cpu");
}

}  // namespace
}  // namespace kvc::runtime
