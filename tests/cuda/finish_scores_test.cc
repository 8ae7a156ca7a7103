// The device's last part of scoring against the scorers' own, which it must equal to the bit.

#include "kernels/cuda/finish_scores.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"
#include "core/cache/scorer_spec.h"
#include "kernels/cuda/reserve_shares.h"
#include "scorers/scorer.h"
#include "tests/cuda/device_array.h"

namespace kvc::cuda {
namespace {

std::vector<float> RandomSums(Rng& rng, int64_t rows, bool with_ties) {
  std::vector<float> sums(static_cast<size_t>(rows));
  for (float& sum : sums) {
    const double x = std::abs(rng.NextNormal());
    sum = static_cast<float>(with_ties ? std::floor(4.0 * x) / 4.0 : x * x);
  }
  return sums;
}

std::vector<float> Finished(SumFinish in, const std::vector<float>& sums) {
  const DeviceArray<float> device_sums(sums);
  const DeviceArray<float> scores(sums.size());
  const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
  in.sums = device_sums.data();
  in.scores = scores.data();
  in.rows = static_cast<int32_t>(sums.size());
  in.faults = faults.data();
  const DeviceArray<SumFinish> table(std::vector<SumFinish>{in});
  FinishScores(table.data(), 1, in.rows, nullptr);
  EXPECT_EQ(faults.Host()[0], 0);
  return scores.Host();
}

std::vector<float> ByScorer(const std::string& spec, const scorers::TokenSums& sums) {
  std::vector<float> scores(
      std::max({sums.by_window.size(), sums.by_prompt.size(), sums.by_keys.size()}));
  scorers::Scorer::Create(ParseScorer(spec, ""))->Finish(sums, scores);
  return scores;
}

TEST(FinishScores, AreThoseOfTheScorers) {
  Rng rng(71);
  UnderOrders([&] {
    for (const int64_t rows : {1, 5, 256, 257, 700}) {
      for (const int64_t window : {int64_t{1}, std::min<int64_t>(rows, 16), rows}) {
        for (const int32_t pool : {1, 3, 15}) {
          const std::vector<float> sums = RandomSums(rng, rows, false);
          const std::string pools = "pool=" + std::to_string(pool);
          SumFinish in;
          in.window = static_cast<int32_t>(window);
          in.pool = pool;
          in.weight = 1.0F / static_cast<float>(window * 3);
          EXPECT_EQ(Finished(in, sums),
                    ByScorer("snapkv:" + pools, {.by_window = sums, .heads = 3, .window = window}));
          const double energy = 0.3 + rng.NextDouble();
          const DeviceArray<double> device_energy(std::vector<double>{energy});
          in.energy = device_energy.data();
          EXPECT_EQ(
              Finished(in, sums),
              ByScorer(
                  "output-error:" + pools,
                  {.by_window = sums, .heads = 3, .window = window, .residual_energy = energy}));
          in.divisor = static_cast<double>(window) * 3.0;
          EXPECT_EQ(
              Finished(in, sums),
              ByScorer(
                  "output-error:reduce=mean," + pools,
                  {.by_window = sums, .heads = 3, .window = window, .residual_energy = energy}));
        }
      }
    }
  });
}

TEST(FinishScores, WithoutSumsARowIsItsNumber) {
  const DeviceArray<float> scores(size_t{300});
  SumFinish in;
  in.scores = scores.data();
  in.rows = 300;
  const DeviceArray<SumFinish> table(std::vector<SumFinish>{in});
  FinishScores(table.data(), 1, in.rows, nullptr);
  std::vector<float> expected(300);
  for (size_t j = 0; j < expected.size(); ++j) expected[j] = static_cast<float>(j);
  EXPECT_EQ(scores.Host(), expected);
}

// The first rows may hold anything; no score is a NaN whatever the sums are.
TEST(FinishScores, CountsWhatIsNoNumber) {
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    std::vector<float> sums(400, 1.0F);
    sums[0] = sums[7] = sums[399] = bad;
    const DeviceArray<float> device_sums(sums);
    const DeviceArray<float> scores(sums.size());
    const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
    SumFinish in;
    in.sums = device_sums.data();
    in.scores = scores.data();
    in.rows = 400;
    in.pool = 3;
    in.unchecked = 4;
    in.faults = faults.data();
    const DeviceArray<SumFinish> table(std::vector<SumFinish>{in, in});
    FinishScores(table.data(), 1, in.rows, nullptr);
    EXPECT_EQ(faults.Host()[0], 2) << bad;
    for (const float score : scores.Host()) EXPECT_FALSE(std::isnan(score)) << bad;
  }
  for (const double energy : {0.0, -1.0, static_cast<double>(NAN)}) {
    const DeviceArray<double> device_energy(std::vector<double>{energy});
    const DeviceArray<float> sums(std::vector<float>(300, 1.0F));
    const DeviceArray<int32_t> faults(std::vector<int32_t>{0});
    SumFinish in;
    in.sums = sums.data();
    in.energy = device_energy.data();
    in.rows = 300;
    in.faults = faults.data();
    const DeviceArray<SumFinish> table(std::vector<SumFinish>{in});
    FinishScores(table.data(), 1, in.rows, nullptr);
    EXPECT_EQ(faults.Host()[0], 1) << energy;
  }
}

TEST(SumHeads, AddsHeadsAndPinsSinks) {
  Rng rng(72);
  UnderOrders([&] {
    for (const int32_t heads : {1, 2, 5}) {
      const int32_t rows = 300;
      const std::vector<float> scores = RandomSums(rng, heads * rows, false);
      std::vector<std::vector<float>> of_heads;
      for (int64_t h = 0; h < heads; ++h) {
        of_heads.emplace_back(scores.begin() + h * rows, scores.begin() + (h + 1) * rows);
      }
      std::vector<float> expected(static_cast<size_t>(rows));
      scorers::CombineHeads(*scorers::Scorer::Create(ParseScorer("output-error", "")), of_heads,
                            expected);
      std::fill_n(expected.begin(), 4, INFINITY);
      const DeviceArray<float> device_scores(scores);
      const HeadsSum in = {device_scores.data(), rows, heads, 4};
      const DeviceArray<HeadsSum> table(std::vector<HeadsSum>{in});
      SumHeads(table.data(), 1, rows, nullptr);
      std::vector<float> actual = device_scores.Host();
      actual.resize(static_cast<size_t>(rows));
      EXPECT_EQ(actual, expected);
    }
  });
}

// The whole of output-error with shares: the prompt's scores, the window's share, KeyDiff's share.
TEST(ReserveShares, AreThoseOfTheScorer) {
  Rng rng(73);
  const auto compare = [&](int64_t rows, double recent, double keydiff, bool ties) {
    const std::vector<float> window = RandomSums(rng, rows, ties);
    const std::vector<float> prompt = RandomSums(rng, rows, ties);
    std::vector<float> keys = RandomSums(rng, rows, ties);
    for (float& key : keys) key = 0.5F - key;
    const int64_t last = std::min<int64_t>(rows, 6);
    const int64_t first = std::min<int64_t>(rows, 4);
    const auto count = static_cast<int32_t>(std::max<int64_t>(rows - last - first, 0));
    SumFinish in;
    in.window = static_cast<int32_t>(last);
    in.pool = 3;
    const DeviceArray<float> pooled(Finished(in, window));
    in.pool = 1;
    in.divisor = 2.0 * 9.0;
    const DeviceArray<float> scores(Finished(in, prompt));
    const DeviceArray<float> by_keys(keys);
    const DeviceArray<uint32_t> scratch(static_cast<size_t>(kReserveScratch * rows));
    const auto reserve = [&](const float* other, double share) {
      if (share == 0.0) return;
      const ShareReserve entry = {other + first, scores.data() + first, count,
                                  (1.0 - share) / share, scratch.data()};
      const DeviceArray<ShareReserve> table(std::vector<ShareReserve>{entry});
      cuda::ReserveShares(table.data(), 1, nullptr);
      Synchronize(nullptr);
    };
    reserve(pooled.data(), recent);
    reserve(by_keys.data(), keydiff);
    const std::string spec =
        "output-error:reduce=max,pool=3,prompt=9,recent=" + std::to_string(recent) +
        ",keydiff=" + std::to_string(keydiff);
    const std::vector<float> expected = ByScorer(spec, {.by_window = window,
                                                        .by_prompt = prompt,
                                                        .by_keys = keys,
                                                        .heads = 2,
                                                        .window = last,
                                                        .prompt_queries = 9,
                                                        .sinks = 4});
    EXPECT_EQ(scores.Host(), expected) << rows << " rows, " << spec;
  };
  UnderOrders([&] {
    for (const int64_t rows : {1, 9, 11, 40, 700}) {
      for (const double share : {0.0, 0.2, 0.75}) {
        compare(rows, share, 0.3, false);
        compare(rows, 0.25, share, true);
      }
    }
  });
  compare(6000, 0.2, 0.3, false);
}

}  // namespace
}  // namespace kvc::cuda
