#include "profile/window_sums.h"

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "tests/support/thread_ranks.h"

namespace kvc::profile {
namespace {

// Sums of a layer by `size` ranks: windows add numbers whose sum depends on the order of adding.
std::vector<double> SumsOn(int size, int64_t num_windows) {
  std::vector<double> result;
  kvc::testing::RunRanks(size, [&](Ranks& ranks) {
    std::vector<double> first(3, 0.0), second(2, 0.0);
    WindowSums sums(ranks, num_windows, {std::span(first), std::span(second).subspan(1)});
    for (const int64_t w : ranks.PartsOf(num_windows)) {
      Rng rng(w);
      for (double& x : first) x += rng.NextNormal() * 1e8;
      for (double& x : first) x += rng.NextNormal();
      second[1] += rng.NextNormal();
      sums.TakeWindow();
      EXPECT_EQ(first, std::vector<double>(3, 0.0));
    }
    sums.Finish();
    EXPECT_EQ(second[0], 0.0);
    if (ranks.rank() == size - 1) result = {first[0], first[1], first[2], second[1]};
  });
  return result;
}

TEST(WindowSums, AreThoseOfOneRank) {
  for (const int64_t num_windows : {1, 2, 9}) {
    std::vector<double> expected(4, 0.0);
    for (int64_t w = 0; w < num_windows; ++w) {
      Rng rng(w);
      double part[3] = {};
      for (double& x : part) x += rng.NextNormal() * 1e8;
      for (double& x : part) x += rng.NextNormal();
      for (int i = 0; i < 3; ++i) expected[i] += part[i];
      expected[3] += rng.NextNormal();
    }
    for (const int size : {1, 2, 3, 4}) EXPECT_EQ(SumsOn(size, num_windows), expected);
  }
}

}  // namespace
}  // namespace kvc::profile
