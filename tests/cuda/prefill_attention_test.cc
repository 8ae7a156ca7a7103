#include "kernels/cuda/prefill_attention.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/prefill_case.h"

namespace kvc::cuda {
namespace {

std::vector<PrefillShape> Shapes() {
  return {
      // name, tokens, first, group, window, {key, value widths}
      {"one token", 1, 0, 1, 0, {{64, 64}}},
      {"one token late", 1, 130, 3, 0, {{64, 64}}},
      {"two tokens", 2, 63, 4, 0, {{64, 64}}},
      {"whole tiles", 64, 64, 1, 0, {{64, 64}}},
      {"odd tokens", 67, 5, 1, 0, {{64, 64}, {64, 64}}},
      {"group 3", 45, 30, 3, 0, {{64, 64}}},
      {"group 8", 9, 70, 8, 0, {{64, 64}}},
      {"group 12", 11, 0, 12, 0, {{64, 64}}},
      {"group 100", 2, 33, 100, 0, {{16, 16}}},
      {"thin keys", 40, 17, 2, 0, {{32, 64}, {16, 64}}},
      {"thin keys, wide values", 21, 50, 2, 0, {{32, 128}, {8, 120}}},
      {"wide", 19, 60, 4, 0, {{128, 128}}},
      {"ragged ranks", 23, 41, 2, 0, {{1, 64}, {7, 64}, {13, 64}, {64, 40}, {33, 9}}},
      {"wide and ragged", 13, 37, 3, 0, {{100, 128}, {127, 65}, {1, 1}}},
      {"widest", 9, 70, 3, 0, {{256, 256}}},
      {"widest and ragged", 7, 60, 2, 0, {{256, 130}, {7, 64}, {131, 200}, {64, 256}}},
      {"padded rows", 30, 10, 2, 0, {{64, 64}, {24, 64}}, 16},
      {"rows out of line", 30, 10, 2, 0, {{64, 64}}, 4, 4},
      {"a window of one", 20, 3, 2, 1, {{64, 64}}},
      {"a window", 90, 100, 1, 37, {{64, 64}}},
      {"a window within a tile", 33, 70, 3, 5, {{16, 64}}},
      {"a window as long as the rows", 20, 0, 1, 20, {{64, 64}}},
      {"a window over odd rows", 50, 90, 2, 40, {{13, 72}}, 4},
  };
}

std::vector<PrefillShape> LatentShapes() {
  const auto with = [](PrefillShape shape, const LatentShape& latents, int32_t splits = 1) {
    shape.latents = latents;
    shape.splits = splits;
    return shape;
  };
  return {
      with({"one token", 1, 0, 1, 0, {{32, 64}}}, {64, 32}),
      with({"unit rows", 30, 45, 3, 0, {{32, 64}, {20, 64}}}, {64, 32, -1, false, false, true}),
      with({"bias and norm", 21, 50, 4, 0, {{24, 64}}}, {64, 24, -1, true, true}),
      with({"odd pairs", 20, 40, 2, 0, {{13, 40}}}, {46, 13, 11, true, true}),
      with({"nothing turns, wide", 9, 70, 8, 0, {{40, 128}}}, {128, 40, 0}),
      with({"wide latents", 12, 60, 2, 0, {{130, 64}}}, {64, 130}),
      with({"widest", 9, 70, 3, 0, {{60, 256}}}, {256, 60, -1, true, true}),
      with({"more places than dimensions", 9, 70, 3, 0, {{60, 64}}}, {128, 60, 61}),
      with({"a window", 50, 90, 2, 37, {{16, 64}}}, {64, 16, -1, true, true}),
      with({"splits", 20, 300, 2, 0, {{16, 64}}}, {64, 16, -1, true, true}, 3),
  };
}

class PrefillAttentionTest : public testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] RowFormat format() const { return RowFormatFromName(GetParam()); }
  Rng rng_{22};
};

TEST_P(PrefillAttentionTest, AgreesWithDoubleOverOddShapes) {
  for (const PrefillShape& shape : Shapes()) {
    const PrefillCase prefill(shape, format(), format(), rng_);
    EXPECT_LE(prefill.WorstError(prefill.Run()), 1.0) << shape.name;
  }
}

TEST_P(PrefillAttentionTest, LatentsAgreeWithDouble) {
  for (const PrefillShape& shape : LatentShapes()) {
    const PrefillCase prefill(shape, format(), format(), rng_);
    EXPECT_LE(prefill.WorstError(prefill.Run()), 1.0) << shape.name;
  }
}

// Parts of the rows agree too, even where there are more than tiles, and merge in one order.
TEST_P(PrefillAttentionTest, SplitsAgreeWithDouble) {
  for (PrefillShape shape : {PrefillShape{"few tiles", 3, 70, 3, 0, {{64, 64}, {7, 40}}},
                             PrefillShape{"long", 30, 400, 4, 0, {{64, 64}}},
                             PrefillShape{"widest", 5, 200, 2, 0, {{40, 160}, {200, 64}}},
                             PrefillShape{"a window", 40, 400, 2, 100, {{32, 128}}}}) {
    for (const int32_t splits : {2, 5}) {
      shape.splits = splits;
      const PrefillCase prefill(shape, format(), format(), rng_);
      const std::vector<float> outputs = prefill.Run();
      EXPECT_LE(prefill.WorstError(outputs), 1.0) << shape.name << ", " << splits;
      if (splits == 5) UnderOrders([&] { EXPECT_EQ(prefill.Run(), outputs) << shape.name; });
    }
  }
}

// Rows behind the last token, and those that all tokens' windows have left, are NaN.
TEST_P(PrefillAttentionTest, RowsThatNobodySeesDoNotCount) {
  for (const int32_t width : {64, 13}) {
    PrefillShape shape = {"", 21, 90, 2, 30, {{width, 64}}};
    shape.unseen = 70;
    shape.dropped = 61;
    const PrefillCase prefill(shape, format(), format(), rng_);
    EXPECT_LE(prefill.WorstError(prefill.Run()), 1.0) << width;
  }
}

TEST_P(PrefillAttentionTest, ChunksDoNotChangeABit) {
  for (const int32_t window : {0, 50}) {
    const PrefillCase prefill({"", 75, 20, 3, window, {{64, 64}, {7, 64}}}, format(), format(),
                              rng_);
    const std::vector<float> whole = prefill.Run();
    for (const int32_t step : {1, 16, 21, 43}) {
      EXPECT_EQ(prefill.Run(step), whole) << step;
    }
  }
}

TEST_P(PrefillAttentionTest, IsDeterministic) {
  const PrefillCase prefill({"", 40, 50, 4, 0, {{64, 64}, {13, 64}, {32, 64}}}, format(), format(),
                            rng_);
  const std::vector<float> expected = prefill.Run();
  UnderOrders([&] { EXPECT_EQ(prefill.Run(), expected); });
}

INSTANTIATE_TEST_SUITE_P(Formats,
                         PrefillAttentionTest,
                         testing::Values("f32", "f16", "bf16", "int8"),
                         [](const auto& test) { return test.param; });

TEST(PrefillMixedTest, KeysAndValuesOfTwoFormatsAreMultipliedAsFloats) {
  Rng rng(23);
  for (const RowFormat& keys : {kRowsBF16, kRowsF16, kRowsInt8}) {
    const PrefillCase prefill({"", 20, 30, 2, 0, {{32, 64}}}, keys, kRowsF32, rng);
    EXPECT_EQ(prefill.multiplied_as(), RowCode::kF32);
    EXPECT_LE(prefill.WorstError(prefill.Run()), 1.0) << RowFormatName(keys);
  }
}

PrefillHead HeadOf(RowCode code, int32_t key_width, int32_t value_width, int64_t stride) {
  PrefillHead head;
  head.keys = {nullptr, code, key_width, stride};
  head.values = {nullptr, code, value_width, stride};
  return head;
}

TEST(PrefillPlanTest, KnowsTheWidestHeadAndHowRowsAreMultiplied) {
  const PrefillPlan plan =
      PlanPrefill({HeadOf(RowCode::kBF16, 16, 64, 128), HeadOf(RowCode::kBF16, 33, 48, 130)});
  EXPECT_EQ(plan.heads, 2);
  EXPECT_EQ(plan.key_width, 33);
  EXPECT_EQ(plan.value_width, 64);
  EXPECT_EQ(plan.rows, RowCode::kBF16);
  EXPECT_EQ(PlanPrefill({HeadOf(RowCode::kF16, 8, 8, 16)}).rows, RowCode::kF16);
  EXPECT_EQ(PlanPrefill({HeadOf(RowCode::kInt8, 8, 8, 12)}).rows, RowCode::kF32);
  EXPECT_EQ(PlanPrefill({HeadOf(RowCode::kF16, 8, 8, 16), HeadOf(RowCode::kBF16, 8, 8, 16)}).rows,
            RowCode::kF32);
}

TEST(PrefillPlanTest, RefusesWhatTheKernelCannotRead) {
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kBF16, 0, 64, 128)}), Error);
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kBF16, 257, 64, 514)}), Error);
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kBF16, 64, 257, 514)}), Error);
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kBF16, 7, 7, 15)}), Error);
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kInt8, 7, 7, 14)}), Error);
  EXPECT_THROW((void)PlanPrefill({HeadOf(RowCode::kX8, 8, 8, 8)}), Error);
  EXPECT_NO_THROW((void)PlanPrefill({HeadOf(RowCode::kBF16, 7, 7, 14)}));
}

TEST(PrefillPlanTest, RefusesAChunkThatCannotBe) {
  const PrefillPlan plan = PlanPrefill({HeadOf(RowCode::kF32, 8, 8, 32)});
  const auto run = [&](int32_t tokens, int32_t first, int32_t group, int32_t window, float scale) {
    PrefillAttention(nullptr, plan, {tokens, first, group, window, scale, 8, 8}, {}, nullptr);
  };
  EXPECT_NO_THROW(run(0, 0, 1, 0, 1.0F));
  EXPECT_THROW(run(-1, 0, 1, 0, 1.0F), Error);
  EXPECT_THROW(run(1, -1, 1, 0, 1.0F), Error);
  EXPECT_THROW(run(1, 0, 0, 0, 1.0F), Error);
  EXPECT_THROW(run(1, 0, 1, -1, 1.0F), Error);
  EXPECT_THROW(run(1, 0, 1, 0, 0.0F), Error);
  EXPECT_THROW(run(0x7fffffff, 0, 1, 0, 1.0F), Error);
  EXPECT_THROW(run(1, 0x7fffffff, 1, 0, 1.0F), Error);
}

TEST(PrefillSplitsTest, FillTheDeviceButKeepSomeRows) {
  const PrefillPlan plan = PlanPrefill({HeadOf(RowCode::kF32, 8, 8, 32)});
  const auto splits = [&](int32_t tokens, int32_t first, int32_t window) {
    return PrefillSplits(plan, {tokens, first, 2, window, 1.0F, 8, 8}, 20);
  };
  EXPECT_EQ(splits(64, 0, 0), 1);
  EXPECT_EQ(splits(32, 2000, 0), 7);     // of 256 rows
  EXPECT_EQ(splits(32, 100000, 0), 20);  // one unit
  EXPECT_EQ(splits(100, 100000, 0), 5);  // four units
  EXPECT_EQ(splits(32, 100000, 700), 2);
  EXPECT_EQ(splits(4000, 100000, 0), 1);
  PrefillChunk chunk = {32, 100, 2, 0, 1.0F, 8, 8};
  EXPECT_EQ(PrefillRoomOf(plan, chunk).floats, 0);
  chunk.splits = 3;
  EXPECT_EQ(PrefillRoomOf(plan, chunk).floats, 3 * 64 * 10);
  EXPECT_EQ(PrefillRoomOf(plan, chunk).counters, 1);
}

}  // namespace
}  // namespace kvc::cuda
