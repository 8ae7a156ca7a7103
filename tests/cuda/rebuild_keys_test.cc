#include "kernels/cuda/rebuild_keys.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/rebuild_case.h"

namespace kvc::cuda {
namespace {

RebuildShape With(RebuildShape shape, bool bias, bool norm, bool positions) {
  shape.bias = bias;
  shape.norm = norm;
  shape.positions = positions;
  return shape;
}

// Each vector is one launch.
std::vector<std::vector<RebuildShape>> Launches() {
  RebuildShape prefix = {"a prefix of the matrix' columns", 20, 24, 64};
  prefix.columns = 64;
  RebuildShape pad = {"rows out of line", 33, 40, 64};
  pad.ahead = pad.pad = 4;
  RebuildShape live = {"rows that are not there yet", 150, 32, 64};
  live.live = 70;
  RebuildShape none = live;
  none.name = "no rows there yet";
  none.live = 0;
  return {
      // name, rows, rank, width, pairs that turn
      {{"one row", 1, 64, 64}},
      {{"no rows", 0, 64, 64}, {"some rows", 65, 64, 64}},
      {{"rank 1", 30, 1, 64}},
      {{"odd ranks", 64, 7, 64}, {"odd ranks", 63, 13, 30}, {"odd ranks", 5, 33, 2}},
      {With({"a bias", 17, 48, 64}, true, false, false)},
      {With({"a norm", 17, 48, 64}, false, true, false)},
      {With({"a bias and a norm", 70, 100, 128}, true, true, true)},
      {With({"positions", 90, 32, 64}, false, false, true)},
      {{"wide", 40, 200, 128}, {"beside narrow", 70, 16, 64}, {"wider", 20, 30, 256}},
      {With({"odd pairs", 20, 40, 90, 43}, true, true, true), {"few pairs", 5, 16, 40, 3}},
      {With({"half of the pairs turn", 20, 32, 64, 16}, true, true, true)},
      {{"nothing turns, odd width", 20, 32, 63, 0}, {"one wide", 9, 5, 1, 0}},
      {prefix, pad, With(pad, true, true, true)},
      {live, none, With(live, true, true, true)},
  };
}

class RebuildKeysTest : public testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] RowFormat format() const { return RowFormatFromName(GetParam()); }
  Rng rng_{24};
};

TEST_P(RebuildKeysTest, AgreesWithDoubleFromLatentsOfAnyFormat) {
  for (const auto& shapes : Launches()) {
    const RebuildCase rebuild(shapes, format(), kRowsF32, rng_);
    EXPECT_LE(rebuild.WorstError(rebuild.Run()), 1.0) << shapes[0].name;
  }
}

TEST_P(RebuildKeysTest, AgreesWithDoubleForKeysOfAnyFormat) {
  for (const auto& shapes : Launches()) {
    const RebuildCase rebuild(shapes, kRowsBF16, format(), rng_);
    EXPECT_LE(rebuild.WorstError(rebuild.Run()), 1.0) << shapes[0].name;
  }
}

TEST_P(RebuildKeysTest, IsDeterministic) {
  const RebuildCase rebuild({With({"", 100, 40, 64}, true, true, true), {"", 70, 70, 32}}, format(),
                            format(), rng_);
  const auto expected = rebuild.Run();
  UnderOrders([&] { EXPECT_EQ(rebuild.Run(), expected); });
}

INSTANTIATE_TEST_SUITE_P(Formats,
                         RebuildKeysTest,
                         testing::Values("f32", "f16", "bf16", "int8"),
                         [](const auto& test) { return test.param; });

KeyRebuild RebuildOf(int32_t rank, int32_t width, int64_t half, int32_t columns) {
  KeyRebuild in;
  in.latents = {nullptr, RowCode::kBF16, rank, int64_t{rank} * 2};
  in.keys = {nullptr, RowCode::kF32, width, int64_t{width} * 4};
  in.how.rotation.half = half;
  in.how.rank = columns;
  in.how.width = width;
  in.how.places = static_cast<int32_t>(LatentPlaces(width, half));
  in.rows = width + 1;
  return in;
}

TEST(RebuildTableTest, IsRefusedWhereSizesDoNotFit) {
  EXPECT_EQ(MostRows({RebuildOf(32, 64, 32, 32), RebuildOf(7, 80, 40, 9)}), 81);
  EXPECT_THROW((void)MostRows({RebuildOf(32, 257, 0, 32)}), Error);
  EXPECT_THROW((void)MostRows({RebuildOf(32, 0, 0, 32)}), Error);
  EXPECT_THROW((void)MostRows({RebuildOf(32, 64, 32, 31)}), Error);
  EXPECT_THROW((void)MostRows({RebuildOf(0, 64, 32, 31)}), Error);
  KeyRebuild narrow = RebuildOf(32, 64, 32, 32);
  narrow.keys.stride -= 4;
  EXPECT_THROW((void)MostRows({narrow}), Error);
  narrow = RebuildOf(32, 64, 32, 32);
  narrow.latents.stride += 1;
  EXPECT_THROW((void)MostRows({narrow}), Error);
  KeyRebuild other = RebuildOf(32, 64, 32, 32);
  other.how.width = 62;
  EXPECT_THROW((void)MostRows({other}), Error);
  EXPECT_THROW(RebuildKeys(nullptr, -1, 0, nullptr), Error);
  EXPECT_NO_THROW(RebuildKeys(nullptr, 0, 0, nullptr));
}

// Every dimension has a place, pairs that turn together 8 apart.
TEST(LatentPlacesTest, AreWholeStepsOfPairsAndOfTheRest) {
  EXPECT_EQ(LatentPlaces(64, 32), 64);
  EXPECT_EQ(LatentPlaces(64, 0), 64);
  EXPECT_EQ(LatentPlaces(64, 30), 80);
  EXPECT_EQ(LatentPlaces(1, 0), 16);
  EXPECT_EQ(LatentPlaces(40, 3), 64);
  const std::vector<float> matrix(40 * 5, 1.0F);
  const LatentFactors factors = {matrix.data(), nullptr, nullptr, 5, 5, 40, 3};
  const std::vector<uint32_t> packed = PackLatentKeys(factors);
  ASSERT_EQ(std::ssize(packed), PackedLatentWords(5, 40, 3));
  std::vector<int32_t> dimensions(packed.end() - 64, packed.end());
  EXPECT_EQ(dimensions[2], 2);
  EXPECT_EQ(dimensions[3], -1);
  EXPECT_EQ(dimensions[10], 5);
  EXPECT_EQ(dimensions[16], 6);
  std::sort(dimensions.begin(), dimensions.end());
  for (int32_t d = 0; d < 40; ++d) EXPECT_EQ(dimensions[static_cast<size_t>(24 + d)], d);
  EXPECT_THROW((void)PackLatentKeys({matrix.data(), nullptr, nullptr, 5, 6, 40, 3}), Error);
  EXPECT_THROW((void)PackLatentKeys({matrix.data(), nullptr, nullptr, 5, 5, 40, 21}), Error);
}

}  // namespace
}  // namespace kvc::cuda
