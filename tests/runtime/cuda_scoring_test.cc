// Scores and losses that the device's kernels find for a layer, against those of the processor's
// scorers for a copy of the same layer.

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/cache/scorer_spec.h"
#include "runtime/cpu/host_fallback.h"
#include "runtime/cuda/cuda_backend.h"
#include "runtime/cuda/layer_sums.h"
#include "tests/runtime/both_backends.h"
#include "tests/runtime/loaded.h"
#include "tests/runtime/random_bases.h"

namespace kvc::runtime {
namespace {

using testing::DecodeOne;
using testing::Policy;
using testing::PrefillLast;

// The device's backend, which compares every layer's scores with the host's.
class ComparedScores : public CudaBackend {
 public:
  // `of_codes`: what rounding may move of a loss itself, where rows are found anew from codes.
  explicit ComparedScores(ThreadPool& pool, double of_codes = 0.0)
      : CudaBackend(pool), pool_(pool), of_codes_(of_codes) {}

  std::vector<GroupScores> Score(const ScoreRequest& request,
                                 const PreparedModel& model,
                                 SequenceCache& cache) override {
    const auto& own = dynamic_cast<const CudaModel&>(model);
    std::vector<float> storage;
    ConstMatrixF queries;
    if (request.prompt != nullptr) {
      const auto& prompt = dynamic_cast<const CudaActivations&>(*request.prompt);
      storage = prompt.DownloadQueries();
      queries = {storage.data(), prompt.hidden().rows, std::ssize(storage) / prompt.hidden().rows};
    }
    EXPECT_TRUE(CanScore(request, own, cache));
    const std::vector<GroupScores> device = CudaBackend::Score(request, model, cache);
    std::vector<GroupScores> host = ScoreOnHost(request, own.on_host(pool_), queries, cache, pool_);
    EXPECT_EQ(device.size(), host.size());
    for (size_t n = 0; n < host.size(); ++n) {
      ExpectClose(device[n].scores, host[n].scores, 0.0, "scores");
      ExpectClose(device[n].losses, host[n].losses, of_codes_, "losses");
    }
    ++calls;
    return host;  // so that both go on with the same rows
  }

  // So that Score, which is compared, serves the prompt too.
  std::shared_ptr<const PlacedScores> ScoreInPlace(const ScoreRequest& /*request*/,
                                                   const PreparedModel& /*model*/,
                                                   SequenceCache& /*cache*/) override {
    return nullptr;
  }

  int64_t calls = 0;

 private:
  // Rounding moves a score by some D u of the largest ones (tests/cuda/scores_test.cc has bounds);
  // a tier's rows, which are found anew, by some D u of theirs.
  template <class T>
  static void ExpectClose(const std::vector<T>& a,
                          const std::vector<T>& b,
                          double relative,
                          const char* what) {
    ASSERT_EQ(a.size(), b.size()) << what;
    double largest = 0.0;
    for (const T x : b) largest = std::max(largest, std::abs(static_cast<double>(x)));
    for (size_t j = 0; j < a.size(); ++j) {
      ASSERT_LE(std::abs(static_cast<double>(a[j]) - b[j]),
                5e-5 * largest + relative * std::abs(static_cast<double>(b[j])))
          << what << " " << j << ": " << a[j] << " for " << b[j];
    }
  }

  ThreadPool& pool_;
  double of_codes_;
};

class ScoresOnDevice : public ::testing::TestWithParam<const char*> {
 protected:
  // A prompt and so many tokens that rows are re-allocated, or the prompt alone.
  static void Compare(const Loaded& loaded,
                      Session& session,
                      const CacheSpec& spec,
                      int64_t tokens = 16) {
    SCOPED_TRACE(ToString(spec.scorer));
    SequenceOptions options;
    options.cache = spec;
    const auto sequence = session.NewSequence(options);
    PrefillLast(session, *sequence, RandomIds(30, 5));
    for (const int32_t id : loaded.More(tokens, 30, 6)) (void)DecodeOne(session, *sequence, id);
  }
};
INSTANTIATE_TEST_SUITE_P(Models,
                         ScoresOnDevice,
                         ::testing::ValuesIn(Layouts()),
                         kvc::testing::ParameterName());
// One layer is rotated, the other is not.
INSTANTIATE_TEST_SUITE_P(Rotations,
                         ScoresOnDevice,
                         ::testing::Values("smollm3", "smollm3-latent"),
                         kvc::testing::ParameterName());

std::vector<std::string> Scorers(bool can_turn) {
  std::vector<std::string> scorers = {
      "snapkv", "output-error", "output-error:reduce=mean,pool=1,keydiff=0.3", "keydiff", "knorm"};
  if (can_turn) {
    scorers.emplace_back("expected-attention");
    scorers.emplace_back("expected-attention:covariance=no");
    scorers.emplace_back("output-error:prompt=9");
    scorers.emplace_back("output-error:reduce=mean,prompt=100,recent=0");
  }
  return scorers;
}

TEST_P(ScoresOnDevice, AreTheProcessors) {
  const Loaded loaded({GetParam(), "cpu"});
  ThreadPool pool(2);
  const auto backend = std::make_shared<ComparedScores>(pool);
  Session session(loaded.bundle, backend);
  for (const std::string& scorer : Scorers(QueriesCanTurn(GetParam()))) {
    CacheSpec spec =
        Policy(loaded.geometry(), Method::kUniform, ScorerKind::kOutputError, 14, false);
    spec.scorer = ParseScorer(scorer, "");
    Compare(loaded, session, spec);
  }
  EXPECT_GT(backend->calls, 0);
}

TEST_P(ScoresOnDevice, SoAreLossesOfTiers) {
  const Loaded loaded({GetParam(), "cpu"});
  ThreadPool pool(2);
  const auto backend = std::make_shared<ComparedScores>(pool);
  Session session(loaded.bundle, backend);
  const bool thin = std::string(GetParam()).find('-') != std::string::npos;
  for (const TierBasis basis : {TierBasis::kOffline, TierBasis::kPrompt}) {
    for (const char* scorer : {"snapkv", "output-error", "output-error:reduce=mean"}) {
      CacheSpec spec =
          Policy(loaded.geometry(), Method::kUniform, ScorerKind::kOutputError, 14, false);
      spec.scorer = ParseScorer(scorer, "");
      spec.tiers = {{1.0, 1.0}, {1.0, 0.5}, {thin ? 1.0 : 0.25, 0.25}};
      spec.basis = basis;
      spec.bases = testing::RandomBases(loaded.geometry(), 3);
      Compare(loaded, session, spec);
    }
  }
}

// Tiers of fewer bits: what their rounding costs is found with scales of their own.
TEST_P(ScoresOnDevice, SoAreLossesOfFewerBits) {
  const Loaded loaded({GetParam(), "cpu"});
  ThreadPool pool(2);
  // k^ - k is what is left of two rows 254 times as large, each rounded by D u; it counts squared.
  constexpr double kWidth = 16.0;
  constexpr double kUnit = 0x1p-24;
  const auto backend = std::make_shared<ComparedScores>(pool, 2.0 * 254.0 * kWidth * kUnit);
  Session session(loaded.bundle, backend);
  CacheSpec spec = Policy(loaded.geometry(), Method::kUniform, ScorerKind::kOutputError, 14, false);
  spec.tiers = {{1.0, 1.0}, {1.0, 1.0, kRowsInt8, kRowsF16}, {1.0, 0.5, kRowsF16, kRowsInt8}};
  spec.basis = TierBasis::kOffline;
  spec.bases = testing::RandomBases(loaded.geometry(), 3);
  Compare(loaded, session, spec);
}

// Codes with steps; recent rows of a budget held are scored out of eight bits.
TEST_P(ScoresOnDevice, SoAreLossesOfCodesWithSteps) {
  const Loaded loaded({GetParam(), "cpu"});
  ThreadPool pool(2);
  const auto backend = std::make_shared<ComparedScores>(pool);
  Session session(loaded.bundle, backend);
  Compare(loaded, session, StepTiersWithoutTies(loaded.geometry()));
  // A column that a tier has no bits for is zero, between two codes of a tier that has some: what
  // it becomes there is a rounding's choice. So rows are compared before any is in a tier.
  Compare(loaded, session, MixturesWithoutTies(loaded.geometry()), 0);
}

}  // namespace
}  // namespace kvc::runtime
