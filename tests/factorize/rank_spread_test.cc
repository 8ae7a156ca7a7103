// Ranks over layers and groups: brute force on small problems, and what must hold on any.

#include "factorize/rank_spread.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/base/rng.h"

namespace kvc::factorize {
namespace {

using Spectra = std::vector<std::vector<std::vector<double>>>;

// Energies that fall geometrically, each group at its own pace.
Spectra RandomSpectra(int64_t layers, int64_t groups, int64_t width, uint64_t seed) {
  Rng rng(seed);
  Spectra spectra(layers, std::vector<std::vector<double>>(groups, std::vector<double>(width)));
  for (auto& layer : spectra) {
    for (auto& group : layer) {
      const double pace = 0.5 + 0.45 * rng.NextDouble();
      for (int64_t i = 0; i < width; ++i) group[i] = std::pow(pace, static_cast<double>(i));
    }
  }
  return spectra;
}

double Tail(const std::vector<double>& spectrum, int64_t rank) {
  return std::accumulate(spectrum.begin() + rank, spectrum.end(), 0.0);
}

// The modelled loss of one choice of ranks.
double Loss(const Spectra& spectra,
            const std::vector<double>& sensitivity,
            int64_t uniform,
            const std::vector<int64_t>& ranks) {
  double loss = 0.0;
  size_t at = 0;
  for (size_t l = 0; l < spectra.size(); ++l) {
    double unit = 0.0;
    for (const auto& group : spectra[l]) unit += Tail(group, uniform);
    for (const auto& group : spectra[l]) {
      loss += sensitivity[l] * Tail(group, ranks[at++]) / unit;
    }
  }
  return loss;
}

std::vector<int64_t> Flatten(const std::vector<std::vector<int64_t>>& ranks) {
  std::vector<int64_t> flat;
  for (const auto& layer : ranks) flat.insert(flat.end(), layer.begin(), layer.end());
  return flat;
}

TEST(SpreadRanks, IsTheBestOfAllChoices) {
  constexpr int64_t kWidth = 6;
  constexpr int64_t kUniform = 2;
  for (uint64_t seed = 0; seed < 20; ++seed) {
    const Spectra spectra = RandomSpectra(2, 2, kWidth, seed);
    const std::vector<double> sensitivity = {0.1, 0.7};
    const auto chosen = Flatten(SpreadRanks(spectra, sensitivity, kUniform, 1));
    double best = Loss(spectra, sensitivity, kUniform, {2, 2, 2, 2});
    for (int64_t code = 0; code < 6 * 6 * 6 * 6; ++code) {
      const std::vector<int64_t> ranks = {1 + code % 6, 1 + code / 6 % 6, 1 + code / 36 % 6,
                                          1 + code / 216};
      if (std::accumulate(ranks.begin(), ranks.end(), int64_t{0}) > 4 * kUniform) continue;
      best = std::min(best, Loss(spectra, sensitivity, kUniform, ranks));
    }
    // Tails are convex in the rank and every step costs the same: greedy is exact.
    EXPECT_NEAR(Loss(spectra, sensitivity, kUniform, chosen), best, 1e-12) << "seed " << seed;
  }
}

TEST(SpreadRanks, KeepsTheMeanAndTheStep) {
  const Spectra spectra = RandomSpectra(5, 3, 64, 1);
  const auto ranks = SpreadRanks(spectra, {0.3, 0.01, 0.2, 0.05, 1.0}, 16, 8);
  ASSERT_EQ(ranks.size(), 5u);
  int64_t sum = 0;
  for (const int64_t rank : Flatten(ranks)) {
    EXPECT_EQ(rank % 8, 0);
    EXPECT_GE(rank, 8);
    EXPECT_LE(rank, 64);
    sum += rank;
  }
  EXPECT_EQ(sum, 5 * 3 * 16);
  EXPECT_GT(ranks[4], ranks[1]);
}

TEST(SpreadRanks, AlikeLayersGetAlikeRanks) {
  const Spectra one = RandomSpectra(1, 1, 32, 3);
  const Spectra spectra(4, one[0]);
  for (const int64_t rank : Flatten(SpreadRanks(spectra, {0.2, 0.2, 0.2, 0.2}, 8, 8))) {
    EXPECT_EQ(rank, 8);
  }
}

TEST(SpreadRanks, LayersThatDoNotMatterGetLeast) {
  const Spectra spectra = RandomSpectra(2, 1, 32, 4);
  const auto ranks = Flatten(SpreadRanks(spectra, {1e-9, 0.5}, 16, 8));
  EXPECT_EQ(ranks[0], 8);
  EXPECT_EQ(ranks[1], 24);
}

TEST(SpreadRanks, FullRanksStayFull) {
  const Spectra spectra = RandomSpectra(3, 2, 32, 5);
  for (const double kld : {0.0, 1e-7, 0.3}) {
    for (const int64_t rank : Flatten(SpreadRanks(spectra, {kld, kld, kld}, 32, 8))) {
      EXPECT_EQ(rank, 32) << kld;
    }
  }
}

// Energies end at rank 10: a uniform rank of 16 loses nothing anywhere.
TEST(SpreadRanks, NothingLostNothingToSpread) {
  Spectra spectra = RandomSpectra(2, 2, 32, 5);
  for (auto& layer : spectra) {
    for (auto& group : layer) std::fill(group.begin() + 10, group.end(), 0.0);
  }
  for (const int64_t rank : Flatten(SpreadRanks(spectra, {0.0, 0.0}, 16, 8))) EXPECT_EQ(rank, 16);
}

// A layer that loses nothing keeps its ranks, whatever the others would give for them; the others
// share what is theirs.
TEST(SpreadRanks, LayersThatLoseNothingKeepTheirRanks) {
  Spectra spectra = RandomSpectra(4, 1, 32, 6);
  std::fill(spectra[1][0].begin() + 16, spectra[1][0].end(), 0.0);
  const auto ranks = Flatten(SpreadRanks(spectra, {1e-9, 0.2, 0.5, 0.0}, 16, 8));
  EXPECT_EQ(ranks, (std::vector<int64_t>{8, 16, 24, 16}));
}

// Rounding can make a divergence of nothing negative.
TEST(SpreadRanks, ANegativeDivergenceIsNone) {
  const Spectra spectra = RandomSpectra(2, 1, 32, 7);
  EXPECT_EQ(Flatten(SpreadRanks(spectra, {-1e-9, -1e-9}, 16, 8)), (std::vector<int64_t>{16, 16}));
}

}  // namespace
}  // namespace kvc::factorize
