// The cost model of ranks against what a run sends, and against its own limits.

#include "factorize/rank_cost.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "factorize/factorize_model.h"
#include "model/threads.h"
#include "tests/factorize/tuning_stage.h"
#include "tests/support/thread_ranks.h"

namespace kvc::factorize {
namespace {

// Another rank with a count of the bytes that it sends.
class CountingRank : public Ranks {
 public:
  explicit CountingRank(Ranks& inner) : inner_(inner) {}
  [[nodiscard]] int rank() const override { return inner_.rank(); }
  [[nodiscard]] int size() const override { return inner_.size(); }
  [[nodiscard]] const std::string& host() const override { return inner_.host(); }
  void Send(int to, std::span<const std::byte> bytes) override {
    sent_ += std::ssize(bytes);
    inner_.Send(to, bytes);
  }
  void Receive(int from, std::span<std::byte> bytes) override { inner_.Receive(from, bytes); }
  void Exchange(int to,
                std::span<const std::byte> sent,
                int from,
                std::span<std::byte> received) override {
    sent_ += std::ssize(sent);
    inner_.Exchange(to, sent, from, received);
  }
  [[noreturn]] void Abort(const std::string& message, int) override {
    throw Error(ErrorKind::kInternal, message);
  }
  [[nodiscard]] int64_t sent() const { return sent_; }

 private:
  Ranks& inner_;
  int64_t sent_ = 0;
};

class RankCostTest : public testing::TuningStage {
 protected:
  void SetUp() override {
    TuningStage::SetUp();
    model::SetThreads(1);
    options_.objective = Objective::kAuto;
    options_.held_back = 0;
  }
  void TearDown() override { model::SetThreads(0); }

  // Returns what the rank sends that sends most.
  double Sent(int size) {
    std::vector<int64_t> sent(size);
    kvc::testing::RunRanks(size, [&](Ranks& ranks) {
      CountingRank counting(ranks);
      NoProgress progress;
      (void)FactorizeModel(options_, progress, counting);
      sent[ranks.rank()] = counting.sent();
    });
    return static_cast<double>(*std::ranges::max_element(sent));
  }
  double Predicted(int size) {
    double total = 0.0;
    for (const StageCost& stage : PlanFactorization(options_, size).rank_cost.stages) {
      total += static_cast<double>(stage.sent);
    }
    return total;
  }
};

TEST_F(RankCostTest, PredictsWhatIsSent) {
  for (const int size : {2, 3}) {
    EXPECT_NEAR(Predicted(size), Sent(size), 0.2 * Sent(size)) << size;
  }
  options_.tune = true;
  for (const int size : {2, 3}) {
    EXPECT_NEAR(Predicted(size), Sent(size), 0.25 * Sent(size)) << size;
  }
}

TEST_F(RankCostTest, OneRankSendsNothingAndMoreRanksDoLess) {
  options_.tune = true;
  options_.tune_global = true;
  options_.spread = true;
  options_.held_back = 4;
  const RankCost one = PlanFactorization(options_, 1).rank_cost;
  const RankCost four = PlanFactorization(options_, 4).rank_cost;
  ASSERT_EQ(one.stages.size(), 5u);
  for (size_t i = 0; i < one.stages.size(); ++i) {
    EXPECT_EQ(one.stages[i].sent, 0);
    EXPECT_LT(four.stages[i].flops, 0.6 * one.stages[i].flops) << one.stages[i].name;
    EXPECT_GT(four.stages[i].flops, 0.2 * one.stages[i].flops) << one.stages[i].name;
    EXPECT_EQ(four.stages[i].read, one.stages[i].read);
  }
}

TEST_F(RankCostTest, HiddenStatesAreDivided) {
  options_.calibration_tokens = 1 << 20;
  const RankCost one = PlanFactorization(options_, 1).rank_cost;
  const RankCost eight = PlanFactorization(options_, 8).rank_cost;
  EXPECT_LT(eight.memory(), 0.3 * static_cast<double>(one.memory()));
}

}  // namespace
}  // namespace kvc::factorize
