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
      {{"wide", 40, 200, 128}, {"beside narrow", 70, 16, 64}},
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

TEST(RebuildSizeTest, IsTheLargestAndRefusesWhatDoesNotFit) {
  const auto rebuild = [](int32_t rank, int32_t width, int64_t half, int64_t matrix_stride) {
    KeyRebuild in;
    in.latents = {nullptr, RowCode::kBF16, rank, int64_t{rank} * 2};
    in.keys = {nullptr, RowCode::kF32, width, int64_t{width} * 4};
    in.rotation.half = half;
    in.matrix_stride = matrix_stride;
    in.rows = width + 1;
    return in;
  };
  const RebuildSize size = SizeOf({rebuild(32, 64, 32, 32), rebuild(7, 80, 40, 9)});
  EXPECT_EQ(size.most_rows, 81);
  EXPECT_EQ(size.most_width, 80);
  EXPECT_THROW((void)SizeOf({rebuild(32, 129, 0, 32)}), Error);
  EXPECT_THROW((void)SizeOf({rebuild(32, 0, 0, 32)}), Error);
  EXPECT_THROW((void)SizeOf({rebuild(32, 64, 33, 32)}), Error);
  EXPECT_THROW((void)SizeOf({rebuild(32, 64, 32, 31)}), Error);
  EXPECT_THROW((void)SizeOf({rebuild(0, 64, 32, 31)}), Error);
  KeyRebuild narrow = rebuild(32, 64, 32, 32);
  narrow.keys.stride -= 4;
  EXPECT_THROW((void)SizeOf({narrow}), Error);
  narrow = rebuild(32, 64, 32, 32);
  narrow.latents.stride += 1;
  EXPECT_THROW((void)SizeOf({narrow}), Error);
  EXPECT_THROW(RebuildKeys(nullptr, -1, size, nullptr), Error);
  EXPECT_NO_THROW(RebuildKeys(nullptr, 0, size, nullptr));
}

}  // namespace
}  // namespace kvc::cuda
