// Ranks (core/base/ranks.h) as threads: what is collective, on 1 to 5 ranks.

#include "core/base/ranks.h"

#include <atomic>
#include <cstring>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "core/base/ordered_sum.h"
#include "core/base/rng.h"
#include "core/io/json.h"
#include "core/io/rank_facts.h"
#include "tests/support/thread_ranks.h"

namespace kvc {
namespace {

using testing::RunRanks;

class RanksBySize : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Sizes, RanksBySize, ::testing::Values(1, 2, 3, 4, 5));

// Results of all ranks, by rank.
template <class T>
std::vector<T> OnAll(int size, const std::function<T(Ranks&)>& body) {
  std::vector<T> results(size);
  std::mutex mutex;
  RunRanks(size, [&](Ranks& ranks) {
    T result = body(ranks);
    const std::scoped_lock lock(mutex);
    results[ranks.rank()] = std::move(result);
  });
  return results;
}

TEST_P(RanksBySize, BroadcastReachesAllFromAnyRoot) {
  for (int root = 0; root < GetParam(); ++root) {
    const auto results = OnAll<std::string>(GetParam(), [&](Ranks& ranks) {
      return ranks.Broadcast("from " + std::to_string(ranks.rank()), root);
    });
    for (const std::string& text : results) EXPECT_EQ(text, "from " + std::to_string(root));
  }
}

TEST_P(RanksBySize, GatherIsInTheOrderOfRanks) {
  const auto gathered = OnAll<std::vector<std::string>>(GetParam(), [](Ranks& ranks) {
    return ranks.Gather(std::string(ranks.rank(), 'x'), ranks.size() - 1);
  });
  const auto everywhere = OnAll<std::vector<std::string>>(
      GetParam(), [](Ranks& ranks) { return ranks.AllGather(std::string(ranks.rank(), 'x')); });
  std::vector<std::string> expected;
  expected.reserve(GetParam());
  for (int r = 0; r < GetParam(); ++r) expected.emplace_back(r, 'x');
  for (int r = 0; r < GetParam(); ++r) {
    EXPECT_EQ(everywhere[r], expected);
    EXPECT_EQ(gathered[r], r == GetParam() - 1 ? expected : std::vector<std::string>());
  }
}

TEST_P(RanksBySize, PartsArriveInTheirOrder) {
  for (const int64_t count : {0, 1, 4, 7}) {
    const auto results = OnAll<std::vector<std::string>>(GetParam(), [&](Ranks& ranks) {
      std::vector<std::string> mine;
      for (const int64_t part : ranks.PartsOf(count)) {
        EXPECT_TRUE(ranks.Owns(part));
        mine.push_back(std::to_string(part));
      }
      EXPECT_EQ(ranks.GatherParts(mine, count).size(), ranks.is_first() ? count : 0);
      return ranks.AllGatherParts(mine, count);
    });
    for (const auto& parts : results) {
      ASSERT_EQ(std::ssize(parts), count);
      for (int64_t p = 0; p < count; ++p) EXPECT_EQ(parts[p], std::to_string(p));
    }
  }
}

TEST_P(RanksBySize, TotalIsTheSumOnAll) {
  const auto totals =
      OnAll<int64_t>(GetParam(), [](Ranks& ranks) { return ranks.Total(10 - ranks.rank()); });
  const int64_t n = GetParam();
  for (const int64_t total : totals) EXPECT_EQ(total, 10 * n - n * (n - 1) / 2);
}

TEST_P(RanksBySize, BarrierWaitsForAll) {
  std::atomic<int> arrived = 0;
  RunRanks(GetParam(), [&](Ranks& ranks) {
    for (int round = 1; round <= 20; ++round) {
      ++arrived;
      ranks.Barrier();
      EXPECT_GE(arrived.load(), round * ranks.size());
      ranks.Barrier();
    }
  });
}

// Parts whose sum depends on the order of adding.
std::vector<std::vector<float>> RoughParts(int64_t count, int64_t length) {
  Rng rng(7);
  std::vector<std::vector<float>> parts(count, std::vector<float>(length));
  for (auto& part : parts) {
    for (float& x : part) {
      x = static_cast<float>((rng.NextDouble() - 0.5) * (rng.NextDouble() < 0.3 ? 1e6 : 1.0));
    }
  }
  return parts;
}

TEST_P(RanksBySize, SumHasTheBitsOfAddingInOrder) {
  for (const int64_t count : {0, 1, 5, 12, 23}) {
    for (const int64_t length : {1, 3, 40}) {
      const auto parts = RoughParts(count, length);
      std::vector<float> expected(length, 0.0F);
      for (const auto& part : parts) {
        for (int64_t i = 0; i < length; ++i) expected[i] += part[i];
      }
      for (const int64_t buffer : {int64_t{1}, length * 4 * 3, int64_t{1} << 20}) {
        const auto results = OnAll<std::vector<float>>(GetParam(), [&](Ranks& ranks) {
          OrderedSum<float> sum(ranks, count, length, buffer);
          for (const int64_t part : ranks.PartsOf(count)) sum.Add(parts[part]);
          return sum.Finish();
        });
        for (const auto& result : results) {
          ASSERT_EQ(result.size(), expected.size());
          EXPECT_EQ(std::memcmp(result.data(), expected.data(), length * sizeof(float)), 0)
              << count << " parts of " << length << ", buffer " << buffer;
        }
      }
    }
  }
}

TEST(OrderedSum, OrderMatters) {
  // The test above can fail: another order of the same parts has other bits.
  const auto parts = RoughParts(23, 40);
  std::vector<float> forward(40, 0.0F), backward(40, 0.0F);
  for (size_t p = 0; p < parts.size(); ++p) {
    for (int i = 0; i < 40; ++i) {
      forward[i] += parts[p][i];
      backward[i] += parts[parts.size() - 1 - p][i];
    }
  }
  EXPECT_NE(forward, backward);
}

TEST(OrderedSum, RefusesPartsTooManyAndTooFew) {
  OrderedSum<double> sum(OneRank(), 1, 2);
  const std::vector<double> part = {1.0, 2.0};
  EXPECT_THROW(sum.Add(std::span(part).first(1)), Error);
  EXPECT_THROW(static_cast<void>(sum.Finish()), Error);
  sum.Add(part);
  EXPECT_THROW(sum.Add(part), Error);
  EXPECT_EQ(sum.Finish(), part);
}

// The error that ranks with these facts are refused with, or "".
std::string Refusal(int size, const std::function<RankFacts(int)>& facts) {
  try {
    RunRanks(size, [&](Ranks& ranks) { CheckAgreement(ranks, facts(ranks.rank())); });
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kUsage);
    return error.what();
  }
  return "";
}

TEST(CheckAgreement, NamesRankHostAndFact) {
  EXPECT_EQ(Refusal(4, [](int) { return RankFacts{{"version", "1"}, {"--windows", "4"}}; }), "");
  EXPECT_EQ(Refusal(1, [](int r) { return RankFacts{{"rank", std::to_string(r)}}; }), "");
  EXPECT_EQ(Refusal(4,
                    [](int r) {
                      return RankFacts{{"version", "1"}, {"--windows", r == 2 ? "8" : "4"}};
                    }),
            "rank 2 on host2: --windows: expected 4 as on rank 0 (host0), got 8; start all ranks "
            "with the same kvc, options and inputs");
  EXPECT_EQ(Refusal(2,
                    [](int r) {
                      RankFacts facts = {{"version", "1"}};
                      if (r == 1) facts.emplace_back("--force", "true");
                      return facts;
                    }),
            "rank 1 on host1: --force: expected nothing as on rank 0 (host0), got true; start all "
            "ranks with the same kvc, options and inputs");
}

TEST(CheckAgreement, TakesTheMembersOfAnObject) {
  const RankFacts expected = {{"length", "64"}, {"text", "[\"a\",2]"}};
  EXPECT_EQ(FactsOf({{"length", 64}, {"text", {"a", 2}}}), expected);
  EXPECT_TRUE(FactsOf(Json::object()).empty());
}

TEST(RunRanks, AFailureEndsTheOthers) {
  try {
    RunRanks(3, [](Ranks& ranks) {
      if (ranks.rank() == 1) KVC_THROW(kNumeric, "weights: NaN");
      ranks.Barrier();
    });
    FAIL() << "expected an error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "weights: NaN");
  }
}

TEST(OneRank, NeedsNobody) {
  Ranks& one = OneRank();
  one.Barrier();
  EXPECT_EQ(one.size(), 1);
  EXPECT_EQ(one.Broadcast("x"), "x");
  EXPECT_EQ(one.Gather("x"), std::vector<std::string>{"x"});
  EXPECT_EQ(one.AllGatherParts({"a", "b"}, 2), (std::vector<std::string>{"a", "b"}));
  EXPECT_THROW(one.Send(1, {}), Error);
}

}  // namespace
}  // namespace kvc
