#include "solver/tier_choice.h"

#include <algorithm>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/expect_error.h"

namespace kvc::solver {
namespace {

constexpr int64_t kTiers = 3;

struct Problem {
  std::vector<double> losses;  // [n, K]
  std::vector<int64_t> bytes = {8, 4, 1};
  std::vector<int64_t> now;
  std::vector<uint8_t> reaches = {1, 1, 1, 0, 1, 1, 0, 0, 1};
};

Problem Random(int64_t count, Rng& rng) {
  Problem problem;
  for (int64_t j = 0; j < count; ++j) {
    const double dropped = static_cast<double>(1 + rng.NextBelow(40));
    problem.losses.insert(problem.losses.end(), {dropped, 0.25 * dropped, 0.75 * dropped});
    problem.now.push_back(rng.NextBelow(kTiers));
  }
  return problem;
}

// What a choice costs and loses; infinite for a tier that a token cannot have.
std::pair<int64_t, double> Sum(const Problem& problem, const std::vector<uint8_t>& choice) {
  int64_t bytes = 0;
  double loss = 0.0;
  for (size_t j = 0; j < choice.size(); ++j) {
    if (choice[j] == 0) {
      loss += problem.losses[j * kTiers];
      continue;
    }
    const int64_t t = choice[j] - 1;
    bytes += problem.bytes[t];
    if (t == problem.now[j]) continue;
    loss += problem.reaches[problem.now[j] * kTiers + t] != 0
                ? problem.losses[j * kTiers + t]
                : std::numeric_limits<double>::infinity();
  }
  return {bytes, loss};
}

// Every choice of five tokens, one by one.
double LeastLoss(const Problem& problem, int64_t budget) {
  double least = std::numeric_limits<double>::infinity();
  std::vector<uint8_t> choice(problem.now.size(), 0);
  for (int64_t code = 0; code < 1024; ++code) {
    for (size_t j = 0; j < choice.size(); ++j) choice[j] = (code >> (2 * j)) & 3;
    const auto [bytes, loss] = Sum(problem, choice);
    if (bytes <= budget) least = std::min(least, loss);
  }
  return least;
}

TEST(TierChoice, IsWithinAFewLossesOfTheBestOfAll) {
  Rng rng(3);
  int64_t exact = 0;
  for (int trial = 0; trial < 60; ++trial) {
    const Problem problem = Random(5, rng);
    const MatrixView<const double> losses(problem.losses.data(), 5, kTiers);
    const TierChoice rule({losses, problem.bytes, problem.now, problem.reaches});
    for (const int64_t budget : {0, 3, 9, 17, 28, 40}) {
      const auto [bytes, loss] = Sum(problem, rule.Within(budget));
      EXPECT_LE(bytes, budget);
      EXPECT_GE(loss, LeastLoss(problem, budget) - 1e-4);
      exact += loss < LeastLoss(problem, budget) + 1e-4 ? 1 : 0;
    }
  }
  EXPECT_GT(exact, 300) << "of 360";
}

TEST(TierChoice, WithoutTiersOfTheirOwnAllHaveFullWidth) {
  Rng rng(5);
  Problem problem = Random(5, rng);
  problem.now.assign(5, 0);
  const MatrixView<const double> losses(problem.losses.data(), 5, kTiers);
  const TierChoice given({losses, problem.bytes, problem.now, problem.reaches});
  const TierChoice implied({losses, problem.bytes, {}, {}});
  for (int64_t budget = 0; budget <= 40; ++budget) {
    EXPECT_EQ(given.Within(budget), implied.Within(budget)) << budget;
  }
  EXPECT_EQ(implied.Within(40), std::vector<uint8_t>(5, 1));
  EXPECT_EQ(implied.Within(0), std::vector<uint8_t>(5, 0));
}

TEST(TierChoice, RefusesSizesThatDisagree) {
  const std::vector<double> losses(6, 1.0);
  const std::vector<int64_t> bytes = {4, 2};
  const std::vector<int64_t> now = {0};
  const MatrixView<const double> rows(losses.data(), 3, 2);
  EXPECT_KVC_ERROR(TierChoice({rows, bytes, now, {}}), kBadShape, "a tier for each token");
  const std::vector<int64_t> one = {4};
  EXPECT_KVC_ERROR(TierChoice({rows, one, {}, {}}), kBadShape, "got 2 columns");
}

}  // namespace
}  // namespace kvc::solver
