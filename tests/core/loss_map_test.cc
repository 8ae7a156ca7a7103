#include "core/cache/loss_map.h"

#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/support/expect_error.h"

namespace kvc {
namespace {

// Two groups: points (1, 0.5), (2, 4), (5, 4), (10, 8), and one point (3, 7).
LossMaps TwoGroups() {
  LossMaps maps;
  maps.scores = {1, 2, 5, 10};
  maps.losses = {0.5, 4, 4, 8};
  maps.scores.resize(kLossMapPoints, 10);
  maps.losses.resize(kLossMapPoints, 8);
  maps.scores.resize(2 * kLossMapPoints, 3);
  maps.losses.resize(2 * kLossMapPoints, 7);
  return maps;
}

TEST(LossMap, IsAPolylineThatGoesOnInProportion) {
  const LossMaps maps = TwoGroups();
  const LossMapView first(maps, 0);
  EXPECT_EQ(first(0.0), 0.5);
  EXPECT_EQ(first(1.0), 0.5);
  EXPECT_EQ(first(1.5), 2.25);
  EXPECT_EQ(first(2.0), 4.0);
  EXPECT_EQ(first(3.0), 4.0);
  EXPECT_EQ(first(7.5), 6.0);
  EXPECT_EQ(first(10.0), 8.0);
  EXPECT_EQ(first(20.0), 16.0);
  EXPECT_EQ(first(std::numeric_limits<double>::infinity()),
            std::numeric_limits<double>::infinity());
  const LossMapView second(maps, 1);
  EXPECT_EQ(second(0.0), 7.0);
  EXPECT_EQ(second(6.0), 14.0);
  EXPECT_KVC_ERROR(LossMapView(maps, 2), kBadShape, "group 2");
}

TEST(LossMap, NeverFalls) {
  const LossMaps maps = TwoGroups();
  const LossMapView map(maps, 0);
  double before = 0.0;
  for (double score = 0.0; score < 12.0; score += 1.0 / 64) {
    EXPECT_GE(map(score), before) << score;
    before = map(score);
  }
}

TEST(LossMap, IsTheIdentityWithoutPoints) {
  const LossMapView map;
  EXPECT_TRUE(map.empty());
  for (const double score : {0.0, 1e-9, 3.0}) EXPECT_EQ(map(score), score);
}

TEST(LossMap, RefusesHostileOnes) {
  EXPECT_NO_THROW(CheckLossMaps(TwoGroups(), "maps"));
  const auto refused = [](const std::function<void(LossMaps&)>& spoil, ErrorKind kind,
                          const std::string& part) {
    LossMaps maps = TwoGroups();
    spoil(maps);
    try {
      CheckLossMaps(maps, "maps");
      ADD_FAILURE() << "not refused: " << part;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), kind);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  };
  using enum ErrorKind;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float huge = std::numeric_limits<float>::infinity();
  refused([](LossMaps& m) { m.scores.pop_back(); }, kBadShape, "for each group");
  refused([](LossMaps& m) { m = {}; }, kBadShape, "for each group");
  refused([&](LossMaps& m) { m.losses[2] = nan; }, kNumeric, "NaN");
  refused([&](LossMaps& m) { m.scores[kLossMapPoints - 1] = huge; }, kNumeric, "infinity");
  refused([](LossMaps& m) { m.losses[0] = -1.0F; }, kBadInput, "never fall");
  refused([](LossMaps& m) { m.losses[2] = 3.0F; }, kBadInput, "got 3 after 4");
  refused([](LossMaps& m) { m.scores[1] = 0.5F; }, kBadInput, "never fall");
  refused([](LossMaps& m) { std::fill(m.scores.begin() + kLossMapPoints, m.scores.end(), 0.0F); },
          kBadInput, "last score above 0");
}

}  // namespace
}  // namespace kvc
