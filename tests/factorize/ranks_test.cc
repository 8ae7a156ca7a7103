// The stage as several ranks: the same bytes as one, whoever computes what, and a run that goes on
// with another number of them.

#include <fstream>
#include <functional>
#include <map>
#include <mutex>

#include <gtest/gtest.h>

#include "core/io/json.h"
#include "factorize/factor_bytes.h"
#include "factorize/window_share.h"
#include "model/threads.h"
#include "tests/factorize/tuning_stage.h"
#include "tests/support/expect_error.h"
#include "tests/support/thread_ranks.h"

namespace kvc::factorize {
namespace {

namespace fs = std::filesystem;
using testing::StopsAt;

class FactorizeRanks : public testing::TuningStage {
 protected:
  void SetUp() override {
    TuningStage::SetUp();
    model::SetThreads(1);
    options_.objective = Objective::kAuto;
    options_.held_back = 3;
  }
  void TearDown() override { model::SetThreads(0); }

  // Runs the stage as `size` ranks. Returns the hash of every file that it writes, and what each
  // rank returned, which must be the same.
  std::map<std::string, std::string> RunAs(int size) {
    std::vector<std::string> results(size);
    kvc::testing::RunRanks(size, [&](Ranks& ranks) {
      NoProgress progress;
      results[ranks.rank()] = ToJson(FactorizeModel(options_, progress, ranks)).dump();
    });
    std::map<std::string, std::string> hashes = {{"result", results[0]}};
    for (const std::string& result : results) EXPECT_EQ(result, results[0]);
    for (const auto& entry : fs::directory_iterator(options_.output)) {
      hashes[entry.path().filename()] = Sha256File(entry.path());
    }
    return hashes;
  }
  void ExpectSameBytes() {
    const auto one = RunAs(1);
    EXPECT_GE(one.size(), 3u);
    for (const int size : {2, 3, 5}) EXPECT_EQ(RunAs(size), one) << size;
  }
};

TEST_F(FactorizeRanks, ClosedFormsHaveTheSameBytes) {
  options_.layout = ParseLayout("auto");  // several requests in one pass
  options_.spread = true;
  ExpectSameBytes();
}

TEST_F(FactorizeRanks, ManyWindowsToAPartHaveTheSameBytes) {
  options_.calibration_tokens = 8192;
  options_.window = 96;  // 85 windows, 64 parts
  ExpectSameBytes();
}

TEST_F(FactorizeRanks, WeightsAloneHaveTheSameBytes) {
  options_.calibration.clear();
  options_.objective = Objective::kWeight;
  ExpectSameBytes();
}

TEST_F(FactorizeRanks, TuningHasTheSameBytes) {
  options_.tune = true;
  options_.tune_global = true;
  options_.control = true;
  options_.global.loss = OutputLoss::kCe;
  options_.tune_tokens = 2048;
  options_.tuning.step_tokens = 384;  // three windows
  options_.global.step_tokens = 384;
  ExpectSameBytes();
}

TEST_F(FactorizeRanks, GoesOnWithAnotherNumber) {
  options_.tune = true;
  options_.tune_global = true;
  options_.tune_tokens = 2048;
  const auto whole = RunAs(1);
  const std::pair<const char*, int64_t> stops[] = {{"tune", 210}, {"global tuning", 1}};
  for (const auto& [stage, done] : stops) {
    EXPECT_THROW(kvc::testing::RunRanks(2,
                                        [&, stage = stage, done = done](Ranks& ranks) {
                                          StopsAt stop(ranks.is_first() ? stage : "", done);
                                          (void)FactorizeModel(options_, stop, ranks);
                                        }),
                 Error);
    EXPECT_TRUE(fs::exists(Partial() / "tuned-layer-1.safetensors"));
  }
  EXPECT_EQ(RunAs(3), whole);
  EXPECT_FALSE(fs::exists(Partial()));
}

TEST_F(FactorizeRanks, RefusesRanksThatDiffer) {
  const auto run = [&](const std::function<void(FactorizeOptions&)>& change) {
    kvc::testing::RunRanks(2, [&](Ranks& ranks) {
      FactorizeOptions options = options_;
      if (!ranks.is_first()) change(options);
      NoProgress progress;
      (void)FactorizeModel(options, progress, ranks);
    });
  };
  EXPECT_KVC_ERROR(run([](auto& options) { options.rank = ParseRank("50%", "--rank"); }), kUsage,
                   "rank 1 on host1: options");
  const fs::path other = temp_.path() / "other";
  fs::copy(options_.model, other);
  fs::permissions(other / "model.safetensors", fs::perms::owner_write, fs::perm_options::add);
  {
    std::fstream file(other / "model.safetensors");
    file.seekp(-1, std::ios::end);
    file.put('x');
  }
  EXPECT_KVC_ERROR(run([&](auto& options) { options.model = other; }), kUsage,
                   "model: model.safetensors");
  EXPECT_FALSE(fs::exists(options_.output));
}

TEST(WindowShare, CutsPartsBySizesAlone) {
  Windows windows;
  for (int32_t i = 0; i < 150; ++i) windows.push_back({i});
  for (const int size : {1, 2, 7}) {
    std::map<int64_t, Windows> parts;
    kvc::testing::RunRanks(size, [&](Ranks& ranks) {
      const WindowShare share(windows, ranks);
      static std::mutex mutex;
      const std::scoped_lock lock(mutex);
      EXPECT_EQ(share.parts(), kMostSumParts);
      int64_t part = ranks.rank();
      for (int64_t i = 0; i < std::ssize(share.windows()); ++i) {
        parts[part].push_back(share.windows()[i]);
        if (share.EndsPart(i)) part += size;
      }
    });
    ASSERT_EQ(std::ssize(parts), kMostSumParts);
    Windows all;
    for (const auto& [part, own] : parts) {
      EXPECT_TRUE(own.size() == 2 || own.size() == 3);
      all.insert(all.end(), own.begin(), own.end());
    }
    EXPECT_EQ(all, windows);
  }
}

TEST(FactorBytes, GoThereAndBack) {
  LayerFactors factors;
  factors.ranks = {3, 4};
  factors.k = {1.0F, -0.0F};
  factors.q_reduce = {2.0F};
  factors.pairs = {{1, 2}, {}, {3}};
  factors.spectra = {{0.1, 1e-300}, {}};
  const std::string bytes = PackFactors(factors);
  const LayerFactors back = UnpackFactors(bytes);
  EXPECT_EQ(PackFactors(back), bytes);
  EXPECT_EQ(back.pairs, factors.pairs);
  EXPECT_EQ(back.spectra, factors.spectra);
  EXPECT_EQ(back.q_reduce, factors.q_reduce);
  EXPECT_THROW((void)UnpackFactors(bytes.substr(0, bytes.size() - 1)), Error);
  EXPECT_THROW((void)UnpackFactors(bytes + "x"), Error);
}

}  // namespace
}  // namespace kvc::factorize
