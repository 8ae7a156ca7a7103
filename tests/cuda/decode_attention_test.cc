#include "kernels/cuda/decode_attention.h"

#include <gtest/gtest.h>

#include "core/base/error.h"
#include "tests/cuda/decode_case.h"

namespace kvc::cuda {
namespace {

std::vector<DecodeShape> Shapes() {
  std::vector<std::vector<SegmentSize>> skewed(7, {{40, 64, 64}});
  skewed.push_back({{1280, 64, 64}});  // 8 times the mean of 200 among 8 heads
  return {
      {"one row", 1, 1, {{{1, 64, 64}}}},
      {"no rows", 2, 3, {{{0, 64, 64}}}},
      {"no segments", 1, 2, {{}}},
      {"one head, 15 rows", 4, 3, {{{15, 64, 64}}}},
      {"one head, one block", 3, 1, {{{130, 64, 64}}}},
      {"uniform", 4, 5, {{{300, 64, 64}}, {{300, 64, 64}}}},
      {"ragged", 3, 7, {{{700, 64, 64}}, {{3, 64, 64}}, {{0, 64, 64}}, {{129, 64, 64}}}},
      {"skew 8", 2, 6, skewed},
      {"tiers",
       4,
       6,
       {{{90, 64, 64}, {140, 32, 48}, {333, 16, 16}, {40, 8, 8}},
        {{17, 64, 64}, {0, 32, 32}, {1, 32, 32}}}},
      {"odd widths", 8, 4, {{{77, 56, 64}, {50, 40, 24}, {99, 8, 8}, {65, 24, 40}}}},
      {"many small heads", 7, 2, std::vector<std::vector<SegmentSize>>(9, {{5, 64, 64}})},
      {"thin keys", 5, 4, {{{200, 16, 64}}, {{63, 16, 64}}}, 64},
      {"more blocks than tiles", 6, 40, {{{130, 64, 64}}}},
      {"wide tiers", 4, 5, {{{90, 128, 128}, {140, 64, 64}, {33, 32, 32}, {200, 16, 128}}}},
      {"more query heads than a row's readers", 12, 5, {{{130, 64, 64}}, {{20, 32, 64}}}},
      {"wide odd", 8, 3, {{{64, 120, 72}, {1, 104, 128}}, {{100, 96, 96}}}},
      {"widest", 8, 3, {{{70, 256, 256}, {33, 136, 72}}, {{20, 64, 200}}}},
  };
}

class DecodeAttentionTest : public testing::TestWithParam<DType> {
 protected:
  Rng rng_{21};
};

TEST_P(DecodeAttentionTest, AgreesWithDoubleOverOddShapes) {
  for (const DecodeShape& shape : Shapes()) {
    DecodeCase decode(shape, GetParam(), rng_);
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << shape.name;
  }
}

// Neither the order of threads and blocks nor a second launch (counters return to zero) changes a
// bit.
TEST_P(DecodeAttentionTest, IsDeterministic) {
  const DecodeShape shape = {
      "", 4, 6, {{{90, 64, 64}, {140, 32, 48}, {333, 16, 16}}, {{17, 64, 64}, {1, 32, 32}}}};
  DecodeCase decode(shape, GetParam(), rng_);
  const auto expected = decode.Run();
  EXPECT_EQ(decode.Run(2), expected);
  UnderOrders([&] { EXPECT_EQ(decode.Run(), expected); });
}

TEST_P(DecodeAttentionTest, EveryGroupSize) {
  for (int32_t group = 1; group <= 2 * kDecodeQueries + 1; ++group) {
    DecodeCase decode({"", group, 2, {{{37, 64, 64}, {20, 24, 8}}}}, GetParam(), rng_);
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << group;
  }
}

// Caches in which no two segments are alike, at addresses that are no multiples of 4 bytes where
// the format has 2. First those that tensor cores can multiply.
std::vector<DecodeShape> MixedShapes() {
  const std::optional<RowFormat> bf16 = kRowsBF16;
  const std::optional<RowFormat> int8 = kRowsInt8;
  return {
      {"one element", 1, 1, {{{5, 1, 1, bf16, bf16, 2}}}, 1},
      {"one row of codes", 2, 2, {{{1, 64, 64, int8, int8}}}},
      {"no rows", 2, 3, {{{0, 13, 64, bf16, bf16}}, {}}},
      {"thin keys of odd ranks", 3, 4, {{{90, 13, 64, bf16, bf16, 2}}, {{33, 7, 64, bf16, int8}}}},
      {"codes of every width modulo 4",
       5,
       6,
       {{{40, 61, 62, int8, int8}, {30, 63, 64, int8, int8, 4}, {99, 5, 2, int8, int8, 8, 12}}}},
      {"tiers of 24 and 40", 8, 3, {{{70, 24, 40, int8, bf16}, {50, 40, 24, bf16, int8}}}},
      {"tiers with formats of their own",
       4,
       7,
       {{{90, 64, 64, bf16, bf16}, {140, 64, 64, int8, int8}, {200, 16, 64, bf16, int8}},
        {{17, 64, 64, bf16, int8}, {300, 8, 8, int8, bf16}, {1, 1, 64, bf16, bf16}}}},
      {"wide",
       8,
       5,
       {{{70, 128, 128, int8, int8}, {33, 127, 121, bf16, bf16, 2}}, {{260, 100, 128}}}},
      {"sixteen query heads", 16, 4, {{{70, 33, 64, bf16, int8}}}},
      {"one code with a step", 1, 1, {{{5, 1, 1, kRowsX2, kRowsX2}}}, 1},
      {"tiers of fewer and fewer bits",
       3,
       5,
       {{{90, 64, 64, kRowsX8, kRowsX8},
         {140, 64, 64, kRowsX4, kRowsX4},
         {200, 64, 64, kRowsX2, kRowsX2},
         {32, 64, 64, bf16, bf16}},
        {{17, 64, 64, kRowsX2, kRowsX8}, {1, 64, 64, kRowsX4, bf16}, {9, 64, 64, int8, kRowsX4}}}},
      {"codes with steps of odd widths",
       5,
       4,
       {{{40, 61, 33, kRowsX4, kRowsX2},
         {30, 7, 5, kRowsX2, kRowsX4, 4},
         {99, 64, 64, kRowsX8, kRowsX4, 8, 12},
         {40, 61, 33, kRowsX4, kRowsX2}}}},
      {"wide codes with steps",
       8,
       5,
       {{{70, 128, 128, kRowsX4, kRowsX2}, {33, 127, 121, kRowsX2, kRowsX8}, {20, 128, 128}}}},
      {"bits that differ by column",
       3,
       5,
       {{{90, 64, 64, kRowsMany, kRowsFew},
         {140, 64, 64, kRowsFew, kRowsMany},
         {50, 64, 64, kRowsX4, kRowsFew}},
        {{1, 64, 64, kRowsFew, kRowsFew}, {33, 24, 40, kRowsMany, bf16}}}},
      {"mixtures of odd widths",
       5,
       4,
       {{{40, 61, 33, kRowsMany, kRowsFew},
         {30, 7, 5, kRowsFew, kRowsMany, 4},
         {99, 50, 13, kRowsFew, kRowsMany, 8, 12}}}},
      {"wide mixtures",
       8,
       5,
       {{{70, 128, 128, kRowsFew, kRowsMany}, {33, 127, 121, kRowsMany, int8}}}},
      {"codes with steps to come",
       2,
       3,
       {{{70, 64, 64, kRowsX4, kRowsX4}, {20, 64, 64, kRowsX8, kRowsX8, 0, 0, 90}},
        {{0, 64, 64, kRowsX2, kRowsX2, 0, 0, 5}, {3, 64, 64, kRowsFew, kRowsMany, 0, 0, 70}}}},
  };
}

std::vector<DecodeShape> AnyShapes() {
  const std::optional<RowFormat> f32 = kRowsF32;
  const std::optional<RowFormat> f16 = kRowsF16;
  const std::optional<RowFormat> bf16 = kRowsBF16;
  const std::optional<RowFormat> int8 = kRowsInt8;
  return {
      {"one element", 1, 1, {{{5, 1, 1, f16, f16, 2}}}, 1},
      {"one row of codes", 2, 2, {{{1, 64, 64, f16, int8}}}},
      {"no rows", 2, 3, {{{0, 13, 64, f16, bf16}}, {}}},
      {"thin keys of odd ranks", 3, 4, {{{90, 13, 64, f16, f16, 2}}, {{33, 7, 64, bf16, bf16}}}},
      {"f32, unaligned", 4, 3, {{{77, 21, 63, f32, f32, 4}, {20, 64, 64, f32, f32, 8, 4}}}},
      {"words of 16 bits",
       4,
       3,
       {{{77, 20, 36, bf16, f16, 8}, {50, 64, 64, f16, bf16, 0, 8}, {9, 63, 62, f16, f16, 0, 2}}}},
      {"codes of every width modulo 4",
       5,
       6,
       {{{40, 61, 62, int8, int8}, {30, 63, 64, int8, int8, 4}, {99, 5, 2, int8, f32, 8, 12}}}},
      {"tiers with formats of their own",
       4,
       7,
       {{{90, 64, 64, bf16, bf16}, {140, 64, 64, int8, int8}, {200, 16, 64, f16, int8}},
        {{17, 64, 64, f32, int8}, {300, 8, 8, int8, bf16}, {1, 1, 64, bf16, f32}}}},
      {"wide",
       8,
       5,
       {{{70, 128, 128, int8, int8}, {33, 127, 121, bf16, f16, 2}}, {{260, 100, 128}}}},
      {"sixteen query heads", 16, 4, {{{70, 33, 64, f16, int8}}}},
      {"widest", 7, 4, {{{40, 255, 201, f16, int8}, {30, 129, 256, f32, bf16}}}},
      {"widest of codes", 2, 2, {{{40, 200, 130, int8, int8}}}},
      {"codes with steps beside floats",
       4,
       6,
       {{{90, 64, 64, f32, kRowsX4}, {140, 64, 64, kRowsX2, f16}, {50, 64, 64, kRowsX8, kRowsX8}}}},
      {"widest of codes with steps",
       3,
       4,
       {{{40, 255, 201, kRowsX4, kRowsX2}, {30, 129, 256, kRowsX8, bf16}}}},
      {"mixtures beside floats",
       4,
       6,
       {{{90, 64, 64, f32, kRowsMany}, {140, 64, 64, kRowsFew, f16}, {50, 64, 64, f16, kRowsFew}}}},
      {"widest mixtures",
       3,
       4,
       {{{40, 255, 201, kRowsMany, kRowsFew}, {30, 129, 256, kRowsFew, kRowsMany}}}},
  };
}

void ExpectAllRight(const std::vector<DecodeShape>& shapes, DecodeReader reader) {
  Rng rng(22);
  for (const DecodeShape& shape : shapes) {
    DecodeCase decode(shape, kRowsInt8, rng);
    ASSERT_EQ(decode.plan().launch.reader, reader) << shape.name;
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << shape.name;
    UnderOrders([&] { EXPECT_EQ(decode.Run(2), outputs) << shape.name; });
  }
}

TEST(DecodeAttentionOfAnyRowsTest, MixedRowsAgreeWithDouble) {
  ExpectAllRight(MixedShapes(), DecodeReader::kMixed);
}

TEST(DecodeAttentionOfAnyRowsTest, AnyRowsAgreeWithDouble) {
  ExpectAllRight(AnyShapes(), DecodeReader::kAny);
}

std::vector<DecodeShape> LatentShapes() {
  const std::optional<RowFormat> f32 = kRowsF32;
  const std::optional<RowFormat> f16 = kRowsF16;
  const std::optional<RowFormat> bf16 = kRowsBF16;
  const std::optional<RowFormat> int8 = kRowsInt8;
  return {
      {"one row", 1, 1, {{{1, 32, 64}}}, 0, {64, 32}},
      {"no rows", 2, 3, {{{0, 32, 64}}, {}}, 0, {64, 32}},
      {"unit rows", 4, 5, {{{130, 32, 64}}, {{40, 32, 64}}}, 0, {64, 32, -1, false, false, true}},
      {"positions are numbers", 3, 4, {{{90, 16, 64}}}, 0, {64, 16}, false},
      {"bias and norm", 3, 4, {{{90, 24, 64}, {33, 13, 64}}}, 0, {64, 24, -1, true, true}},
      {"odd ranks", 8, 3, {{{70, 7, 64}, {1, 1, 63}}, {{20, 33, 17}}}, 0, {48, 33}},
      {"odd pairs", 2, 3, {{{70, 20, 64}}}, 0, {46, 20, 11, true, true}},
      {"nothing turns", 2, 3, {{{70, 20, 64}}}, 0, {64, 20, 0}},
      {"wider latents than keys", 3, 4, {{{100, 200, 64}, {50, 90, 32}}}, 0, {64, 200}},
      {"wide keys", 4, 3, {{{70, 48, 128}}, {{33, 40, 128}}}, 0, {128, 48, -1, true, true, true}},
      {"sixteen query heads", 16, 4, {{{70, 33, 64}}}, 0, {64, 33}},
      {"widest", 3, 4, {{{40, 60, 256}}, {{33, 90, 130}}}, 0, {256, 90, -1, true, true}},
      {"more places than dimensions", 3, 4, {{{40, 60, 64}}}, 0, {128, 60, 61}},
      {"formats of their own",
       4,
       5,
       {{{90, 40, 64, bf16, bf16}, {140, 24, 64, int8, int8}, {50, 16, 64, f32, f32, 4, 4}},
        {{17, 40, 64, f16, int8}, {30, 5, 64, bf16, bf16, 2}}},
       0,
       {64, 40}},
      {"rows to come", 2, 3, {{{20, 16, 16, bf16, bf16, 0, 0, 90}}}, 0, {16, 16}},
      {"values in few bits",
       4,
       5,
       {{{90, 40, 64, bf16, kRowsX8},
         {140, 24, 64, int8, kRowsX4},
         {50, 40, 61, bf16, kRowsX2},
         {50, 40, 61, bf16, kRowsMany}}},
       0,
       {64, 40}},
  };
}

TEST_P(DecodeAttentionTest, LatentsAgreeWithDouble) {
  for (const DecodeShape& shape : LatentShapes()) {
    DecodeCase decode(shape, GetParam(), rng_);
    ASSERT_EQ(decode.plan().launch.reader, DecodeReader::kLatents) << shape.name;
    const auto outputs = decode.Run();
    EXPECT_LE(decode.WorstError(outputs), 1.0) << shape.name;
    EXPECT_EQ(decode.Run(2), outputs) << shape.name;
  }
}

// A row of NaN, which is how broken int8 rows are stored, is seen.
TEST(DecodeAttentionOfAnyRowsTest, ABrokenRowIsNotRoundedAway) {
  Rng rng(23);
  for (const RowFormat& keys : {kRowsInt8, kRowsF16}) {
    DecodeCase decode({"", 1, 2, {{{70, 64, 64, keys}}}}, kRowsInt8, rng);
    decode.BreakRow(0, 69);
    const auto outputs = decode.Run();
    for (const float x : outputs[0]) EXPECT_TRUE(std::isnan(x));
  }
}

// A captured launch is replayed while rows come; what is not there yet is never read (the checker
// would tell).
TEST_P(DecodeAttentionTest, ReplaysWhileRowsAreAppended) {
  const RowFormat format = RowFormatOf(GetParam());
  for (const bool any : {false, true}) {
    const int64_t width = any ? 13 : 16;
    const DecodeShape shape = {
        "",
        3,
        7,
        {{{40, 16, 16, format, format}, {61, width, 16, format, format, 0, 0, 140}},
         {{0, 64, 64, format, format, 0, 0, 70}},
         {{0, 8, 8, format, format, 0, 0, 1}}}};
    DecodeCase decode(shape, format, rng_);
    ASSERT_EQ(decode.plan().launch.reader >= DecodeReader::kMixed, any);
    const DevicePlan plan = decode.Upload();
    Stream stream;
    stream.BeginCapture();
    decode.Launch(plan, stream.handle());
    const Graph graph = stream.EndCapture();
    for (int step = 0; step <= 140; ++step) {
      if (step % 10 == 0 || step < 5) {
        graph.Replay(stream.handle());
        Synchronize(stream.handle());
        const auto outputs = decode.Now();
        ASSERT_LE(decode.WorstError(outputs), 1.0) << step;
      }
      decode.Append(stream.handle());
      Synchronize(stream.handle());
    }
  }
}

// A new plan over the old one's arrays, which are as large as any plan's of this launch.
TEST_P(DecodeAttentionTest, ReplaysANewPlanInThePlaceOfTheOld) {
  const RowFormat format = RowFormatOf(GetParam());
  const DecodeShape shape = {"",
                             9,
                             5,
                             {{{40, 16, 16}, {1, 16, 16, format, format, 0, 0, 400}},
                              {{200, 64, 64, format, format, 0, 0, 10}}}};
  DecodeCase decode(shape, format, rng_);
  decode.PlanFor(10);
  const DecodeLaunch launch = decode.plan().launch;
  const DevicePlan plan = decode.Upload();
  Stream stream;
  stream.BeginCapture();
  decode.Launch(plan, stream.handle());
  const Graph graph = stream.EndCapture();
  for (const int32_t more : {10, 100, 400}) {
    decode.PlanFor(more);
    ASSERT_EQ(decode.plan().launch, launch);
    plan.Overwrite(decode.plan(), decode.segments());
    for (int i = 0; i < 3; ++i) decode.Append(stream.handle());
    graph.Replay(stream.handle());
    Synchronize(stream.handle());
    EXPECT_LE(decode.WorstError(decode.Now()), 1.0) << more;
  }
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeAttentionTest, testing::ValuesIn(kFloatTypes));

}  // namespace
}  // namespace kvc::cuda
