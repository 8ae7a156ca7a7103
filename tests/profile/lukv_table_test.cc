#include "profile/lukv_table.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "core/io/files.h"
#include "core/io/safetensors.h"
#include "tests/support/expect_error.h"
#include "tests/support/temp_dir.h"

namespace kvc::profile {
namespace {

constexpr int64_t kLayers = 2;
constexpr int64_t kHeads = 2;
constexpr int64_t kAll = kLayers * kHeads;
constexpr int64_t kPoints = kCurveIntervals + 1;

// Head h loses scale_h (1 - kept)^2: slopes that fall with what is kept.
ProfileData MakeProfile(const std::vector<double>& scales) {
  ProfileData profile;
  profile.num_layers = kLayers;
  profile.num_kv_heads = kHeads;
  profile.context = 1000;
  profile.sinks = 4;
  profile.window = 32;
  std::vector<float>& curve = profile.curves[ScorerKind::kSnapKv];
  for (const double scale : scales) {
    for (int64_t i = 0; i < kPoints; ++i) {
      const double dropped = 1.0 - static_cast<double>(i) / kCurveIntervals;
      curve.push_back(static_cast<float>(scale * dropped * dropped));
    }
  }
  return profile;
}

TEST(LuKvTable, RatiosHaveTheMeanThatIsAskedFor) {
  const ProfileData profile = MakeProfile({1.0, 3.0, 0.5, 0.0});
  const std::vector<float> table = profile::LuKvTable(profile, ScorerKind::kSnapKv);
  ASSERT_EQ(std::ssize(table), profile::kLuKvRatios * kAll);
  const float most = 1.0F - 36.0F / 1000.0F;
  for (int64_t i = 1; i <= profile::kLuKvRatios; ++i) {
    const float* row = table.data() + (i - 1) * kAll;
    const double mean = std::accumulate(row, row + kAll, 0.0) / kAll;
    EXPECT_NEAR(mean, std::min(static_cast<double>(i) / 100.0, static_cast<double>(most)), 1e-6);
    for (int64_t h = 0; h < kAll; ++h) {
      EXPECT_GE(row[h], i > 1 ? row[h - kAll] : 0.0F);
      EXPECT_LE(row[h], most + 1e-6F);
    }
    EXPECT_GE(row[3], row[2]);  // what nobody asks for goes first
    EXPECT_GE(row[2], row[0]);
    EXPECT_GE(row[0], row[1]);
  }
}

// With loss s (1 - kept)^2 the optimum has equal slopes: s_a dropped_a = s_b dropped_b.
TEST(LuKvTable, SlopesAreEqualAtTheOptimum) {
  const ProfileData profile = MakeProfile({1.0, 2.0, 1.0, 2.0});
  const std::vector<float> table = profile::LuKvTable(profile, ScorerKind::kSnapKv);
  const float* row = table.data() + 29 * kAll;  // 30 %
  // Half a grid interval on either side.
  EXPECT_NEAR(row[0], 2.0 * row[1], 1.5 / kCurveIntervals);
  EXPECT_NEAR(row[0], row[2], 1.0 / kCurveIntervals);
}

// Brute force over the grid, two heads: no split of the dropped tokens loses less.
TEST(LuKvTable, NoOtherSplitLosesLess) {
  ProfileData profile = MakeProfile({1.0, 1.0, 1.0, 1.0});
  profile.num_layers = 1;
  profile.sinks = 0;
  profile.window = 0;
  std::vector<float>& curve = profile.curves[ScorerKind::kSnapKv];
  curve.resize(2 * kPoints);
  for (int64_t i = 0; i < kPoints; ++i) {  // exponentials: convex, so that they are their hulls
    const double kept = static_cast<double>(i) / kCurveIntervals;
    curve[i] = static_cast<float>(std::exp(-4.0 * kept) - std::exp(-4.0));
    curve[kPoints + i] = static_cast<float>(2.0 * (std::exp(-9.0 * kept) - std::exp(-9.0)));
  }
  const std::vector<float> table = profile::LuKvTable(profile, ScorerKind::kSnapKv);
  const auto loss = [&](int64_t head, double kept) {  // linear between points
    const double at = std::clamp(kept, 0.0, 1.0) * kCurveIntervals;
    const auto low = std::min<int64_t>(static_cast<int64_t>(at), kCurveIntervals - 1);
    const float* points = curve.data() + head * kPoints + low;
    return points[0] + (at - static_cast<double>(low)) * (points[1] - points[0]);
  };
  for (const int64_t percent : {10, 50, 75, 90}) {
    const float* row = table.data() + (percent - 1) * 2;
    const double found = loss(0, 1.0 - row[0]) + loss(1, 1.0 - row[1]);
    const double sum = 2.0 * static_cast<double>(percent) / 100.0;
    for (int64_t step = 0; step <= 1000; ++step) {
      const double first = static_cast<double>(step) / 1000.0;
      if (sum - first < 0.0 || sum - first > 1.0) continue;
      EXPECT_LE(found, loss(0, 1.0 - first) + loss(1, 1.0 - (sum - first)) + 1e-6) << percent;
    }
  }
}

TEST(LuKvTable, FilesHoldTheTable) {
  const kvc::testing::TempDir directory;
  const ProfileData profile = MakeProfile({1.0, 3.0, 0.5, 0.0});
  const std::vector<float> table = profile::LuKvTable(profile, ScorerKind::kSnapKv);
  profile::WriteLuKvTable(directory.path() / "t.safetensors", profile, ScorerKind::kSnapKv);
  const auto reader = SafetensorsReader::OpenFile(directory.path() / "t.safetensors");
  EXPECT_EQ(reader.Get("ratios").shape, (std::vector<int64_t>{99, kLayers, kHeads}));
  const auto bytes = std::as_bytes(std::span(table));
  EXPECT_TRUE(std::ranges::equal(reader.Get("ratios").bytes, bytes));
  profile::WriteLuKvTable(directory.path() / "t.npy", profile, ScorerKind::kSnapKv);
  const std::string npy = ReadFile(directory.path() / "t.npy");
  EXPECT_NE(npy.find("(99,2,2,)"), std::string::npos);
  EXPECT_TRUE(
      npy.ends_with(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size())));
  EXPECT_KVC_ERROR(profile::CheckLuKvTableName("table.txt"), kUsage, "--lukv-table");
}

}  // namespace
}  // namespace kvc::profile
