#include <gtest/gtest.h>

#include "kernels/attention.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/simd_target_test.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

struct Shape {
  int64_t queries = 1;
  int64_t key_width = 64;
  int64_t value_width = 64;
  RowFormat format = {};
  int64_t rank = 0;  // of a rebuild; 0: none
  bool bias = false;
  bool norm = false;
  int64_t units = 0;  // rows of the rebuild that are unit vectors
};

// A head and all that it points to.
struct Case {
  std::vector<TestArray> keys;
  std::vector<TestArray> values;
  std::vector<std::vector<int32_t>> positions;
  TestArray queries;
  TestArray outputs;
  TestRebuild rebuild;
  KeyRebuild rebuild_view;
  std::vector<Segment> segments;  // which the head borrows
  DecodeHead head;
};

constexpr float kScale = 0.3F;

// Rows of each segment, with its widths where they are narrower than the head's.
struct SegmentShape {
  int64_t rows = 0;
  int64_t key_width = 0;
  int64_t value_width = 0;
};

std::unique_ptr<Case> MakeCase(uint64_t seed,
                               const Shape& shape,
                               const std::vector<SegmentShape>& segments) {
  Rng rng(seed);
  auto test = std::make_unique<Case>();
  test->queries = RandomArray(rng, shape.queries, shape.key_width, DType::kF32, 2);
  test->outputs = RandomArray(rng, shape.queries, shape.value_width, DType::kF32, 3);
  for (const SegmentShape& segment : segments) {
    const int64_t key_width = segment.key_width > 0 ? segment.key_width
                              : shape.rank > 0      ? shape.rank
                                                    : shape.key_width;
    const int64_t value_width = segment.value_width > 0 ? segment.value_width : shape.value_width;
    test->keys.push_back(RandomArray(rng, segment.rows, key_width, shape.format, 1));
    test->values.push_back(RandomArray(rng, segment.rows, value_width, shape.format, 4));
    std::vector<int32_t> positions;
    for (int64_t r = 0; r < segment.rows; ++r) {
      positions.push_back(static_cast<int32_t>(rng.NextBelow(50)));
    }
    test->positions.push_back(positions);
  }
  if (shape.rank > 0) {
    test->rebuild = RandomRebuild(rng, shape.key_width, shape.rank, 50, shape.bias, shape.norm);
    SetUnitRows(shape.units, &test->rebuild.b);
    test->rebuild_view = test->rebuild.view();
    test->head.rebuild = &test->rebuild_view;
  }
  for (size_t s = 0; s < segments.size(); ++s) {
    test->segments.push_back(
        {test->keys[s].block(), test->values[s].block(), test->positions[s].data()});
  }
  test->head.segments = test->segments;
  test->head.queries = test->queries.view();
  test->head.outputs = test->outputs.view();
  return test;
}

// Over codes with steps the kernel takes queries in whole numbers: returns for each column of the
// keys what it makes of the query, as a factor (kernels/cpu/code_part.h says how).
std::vector<double> QueryFactors(const TestArray& keys, const std::vector<float>& query) {
  std::vector<double> factors(static_cast<size_t>(keys.cols), 1.0);
  if (!NeedsSteps(keys.format)) return factors;
  for (const CodeRun& run : RunsOf(keys.format, keys.cols, keys.code()).runs()) {
    std::vector<float> scaled;
    float largest = 0.0F;
    for (int64_t i = run.begin; i < run.end; ++i) {
      scaled.push_back(query[static_cast<size_t>(i)] * kScale * run.steps[i - run.begin]);
      largest = std::max(largest, std::abs(scaled.back()));
    }
    const float most = run.bits == 8 ? 255.0F * 127.0F + 127.0F : 127.0F;  // two digits, or one
    for (int64_t i = run.begin; i < run.end; ++i) {
      const float x = scaled[static_cast<size_t>(i - run.begin)];
      factors[i] = double{std::nearbyint(x * (most / largest))} * (largest / most) / x;
    }
  }
  return factors;
}

// The tokens as the kernel sees them with one query.
std::vector<Token> TokensOf(const Case& test, int64_t query) {
  constexpr double kDigit = 0.5001 / (127 * 256 + 127);
  std::vector<Token> tokens;
  for (size_t s = 0; s < test.keys.size(); ++s) {
    const bool rebuilt = test.head.rebuild != nullptr;
    std::vector<double> factors;
    if (!rebuilt) factors = QueryFactors(test.keys[s], test.queries.Row(query, test.queries.cols));
    for (int64_t r = 0; r < test.keys[s].rows; ++r) {
      Bounded key = rebuilt ? RebuiltKey(test.keys[s], r, test.positions[s][static_cast<size_t>(r)],
                                         test.rebuild)
                            : StoredKey(test.keys[s], r);
      for (size_t i = 0; i < factors.size(); ++i) key.value[i] *= factors[i];
      tokens.push_back(
          {key, StoredValue(test.values[s], r), NeedsSteps(test.values[s].format) ? kDigit : 0.0});
    }
  }
  return tokens;
}

void ExpectMatches(const Case& test, const std::string& what) {
  for (int64_t q = 0; q < test.queries.rows; ++q) {
    const std::vector<Token> tokens = TokensOf(test, q);
    const Bounded expected =
        AttentionReference(StoredValue(test.queries, q), tokens, kScale, test.outputs.cols);
    for (int64_t c = 0; c < test.outputs.cols; ++c) {
      const auto i = static_cast<size_t>(c);
      ASSERT_LE(std::abs(test.outputs(q, c) - expected.value[i]), expected.bound[i])
          << what << ": query " << q << ", column " << c;
    }
    if (q + 1 < test.queries.rows) {
      ASSERT_TRUE(std::isnan(test.outputs(q, test.outputs.cols))) << "wrote behind a row";
    }
  }
}

class DecodeAttentionTest : public SimdTargetTest {
 protected:
  void Check(const Shape& shape,
             const std::vector<SegmentShape>& segments,
             const std::string& what) {
    const auto test = MakeCase(++seed_, shape, segments);
    DecodeAttention({&test->head, 1}, kScale, pool_);
    ExpectMatches(*test, what);
  }
  ThreadPool pool_{2};
  uint64_t seed_ = 0;
};

TEST_P(DecodeAttentionTest, EveryFormatAndGroupSize) {
  for (const RowFormat& format : kEveryFormat) {
    for (const int64_t queries : {1, 2, 3, 4, 5, 7, 8}) {
      Check({queries, 64, 64, format}, {{77}}, "queries " + std::to_string(queries));
    }
  }
}

TEST_P(DecodeAttentionTest, EveryWidth) {
  for (int64_t width = 1; width <= 200; width += 1 + width / 20) {
    const RowFormat& format = kEveryFormat[static_cast<size_t>(width) % kEveryFormat.size()];
    Check({3, width, 201 - width, format}, {{9}}, "width " + std::to_string(width));
  }
}

// Keys and values, and each segment, in a format of their own.
TEST_P(DecodeAttentionTest, FormatsSideBySide) {
  for (const RowFormat& key_format : kEveryFormat) {
    const auto test = MakeCase(++seed_, {3, 40, 24, key_format}, {{70}, {31, 8, 8}, {5}});
    Rng rng(seed_);
    for (size_t s = 0; s < test->values.size(); ++s) {
      TestArray& values = test->values[s];
      values = RandomArray(rng, values.rows, values.cols, kEveryFormat[2 * s + 1], 4);
      test->segments[s].values = values.block();
    }
    TestArray& last = test->keys.back();
    last = RandomArray(rng, last.rows, last.cols, kRowsInt8, 3);
    test->segments.back().keys = last.block();
    DecodeAttention({&test->head, 1}, kScale, pool_);
    ExpectMatches(*test, std::string(RowFormatName(key_format)));
  }
}

TEST_P(DecodeAttentionTest, RaggedSegments) {
  Check({3, 64, 64, kRowsF32}, {{1}}, "one row");
  Check({3, 64, 64, kRowsF32}, {{0}, {1}, {0}}, "empty segments");
  Check({3, 64, 64, kRowsBF16}, {{5}, {47}, {48}, {49}, {3}, {0}, {100}}, "many");
  Check({2, 64, 32, kRowsF32}, {{255}, {2}}, "a part ends inside a segment");
  for (int64_t rows = 1; rows < 20; ++rows) {
    Check({4, 20, 20, kRowsF16}, {{rows}}, "rows " + std::to_string(rows));
  }
}

// Tiers keep a prefix of the columns of keys and values.
TEST_P(DecodeAttentionTest, NarrowerSegments) {
  Check({3, 64, 64, kRowsF32}, {{30, 8, 8}, {30, 16, 16}, {20, 64, 64}}, "tiers");
  Check({3, 64, 64, kRowsBF16}, {{10, 64, 64}, {60, 8, 24}, {1, 1, 1}}, "wide first");
  Check({3, 64, 64, kRowsF32, 48}, {{100, 12, 16}, {30, 6, 8}, {7}}, "tiers of latents");
  Check({2, 64, 64, kRowsF16, 33, true, true}, {{61, 1, 64}, {14}}, "with bias and norm");
  Check({3, 64, 64, kRowsInt8}, {{30, 7, 9}, {30, 16, 16}, {20, 64, 64}}, "in eight bits");
  Check({3, 64, 64, kRowsX4}, {{30, 7, 9}, {30, 16, 17}, {20, 64, 64}}, "in four bits");
}

TEST_P(DecodeAttentionTest, Rebuild) {
  for (const RowFormat& format : kFormatsWithoutSteps) {
    Check({3, 64, 64, format, 48}, {{100}, {7}}, "plain");
    Check({2, 64, 64, format, 33, true}, {{61}}, "bias");
    Check({2, 64, 64, format, 16, true, true}, {{0}, {49}}, "bias and norm");
  }
  Check({1, 2, 5, kRowsF32, 1, true, true}, {{13}}, "smallest");
  Check({5, 128, 128, kRowsF32, 300}, {{14}}, "large rank");
  Check({2, 34, 30, kRowsF32, 7, false, true}, {{300}}, "odd half");
}

TEST_P(DecodeAttentionTest, RebuildWithUnitRows) {
  for (const int64_t units : {1, 13, 22}) {
    Check({3, 64, 64, kRowsF32, 33, false, false, units}, {{100}, {7}}, "plain");
    Check({5, 64, 64, kRowsBF16, 33, true, true, units}, {{61}, {3}}, "bias and norm");
    Check({2, 64, 64, kRowsF32, 33, false, false, units}, {{40, 9, 64}, {5}}, "prefixes");
  }
  Check({1, 2, 5, kRowsF32, 1, false, false, 1}, {{13}}, "one row of two");
}

// Heads that keep the same tokens go together, up to four of them, with one latent or several.
TEST_P(DecodeAttentionTest, HeadsThatKeepTheSameTokens) {
  for (const int64_t units : {0, 10}) {
    const std::vector<SegmentShape> segments = {{300}, {0}, {29}};
    std::vector<std::unique_ptr<Case>> cases;
    std::vector<DecodeHead> heads;
    for (int64_t h = 0; h < 7; ++h) {
      const int64_t rank = h == 3 ? 17 : 24;
      cases.push_back(
          MakeCase(++seed_, {3, 64, 40, kRowsF32, rank, false, false, units}, segments));
      Case& test = *cases.back();
      test.positions = cases[0]->positions;
      test.rebuild_view.cos = cases[0]->rebuild_view.cos;
      test.rebuild_view.sin = cases[0]->rebuild_view.sin;
      const bool own = h == 2 || h == 3;
      if (!own) test.keys = cases[0]->keys;
      for (size_t s = 0; s < segments.size(); ++s) {
        test.segments[s].keys = (own ? test : *cases[0]).keys[s].block();
        test.segments[s].positions = (own ? test : *cases[0]).positions[s].data();
      }
      heads.push_back(test.head);
    }
    DecodeAttention(heads, kScale, pool_);
    for (const auto& test : cases) {
      ExpectMatches(*test, "shared latents");
      const TestArray together = test->outputs;
      DecodeAttention({&test->head, 1}, kScale, pool_);
      EXPECT_TRUE(SameBits(together, test->outputs)) << "alone";
    }
  }
}

TEST_P(DecodeAttentionTest, LongRowsAndManyHeads) {
  Check({3, 32, 32, kRowsF16}, {{9000}, {1000, 8, 8}}, "ten thousand rows");
  std::vector<std::unique_ptr<Case>> cases;
  std::vector<DecodeHead> heads;
  for (int64_t h = 0; h < 6; ++h) {
    cases.push_back(MakeCase(++seed_, {3, 24, 40, kRowsF32}, {{1 + h * h * 40}, {h}}));
    heads.push_back(cases.back()->head);
  }
  DecodeAttention(heads, kScale, pool_);
  for (const auto& test : cases) {
    ExpectMatches(*test, "heads of different lengths");
  }
}

TEST_P(DecodeAttentionTest, SameBitsForAnyNumberOfThreads) {
  ThreadPool one(1);
  for (const int64_t rank : {int64_t{0}, int64_t{24}}) {
    for (const RowFormat& format : {kRowsBF16, kRowsX8, MixedRows(12)}) {
      if (rank > 0 && NeedsSteps(format)) continue;
      const Shape shape{3, 64, 64, format, rank};
      const auto test = MakeCase(5, shape, {{1500}, {700}});
      const auto same = MakeCase(5, shape, {{1500}, {700}});
      DecodeAttention({&test->head, 1}, kScale, pool_);
      DecodeAttention({&same->head, 1}, kScale, one);
      EXPECT_TRUE(SameBits(test->outputs, same->outputs));
    }
  }
}

// A query that is not finite may not become whole numbers that are.
TEST_P(DecodeAttentionTest, BrokenQueriesOverCodesAreSeen) {
  for (const float broken : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const auto test = MakeCase(9, {4, 20, 20, kRowsX4}, {{300}});
    test->queries.Set(1, 7, broken);
    DecodeAttention({&test->head, 1}, kScale, pool_);
    for (int64_t c = 0; c < 20; ++c) {
      EXPECT_FALSE(std::isnan(test->outputs(0, c)));
      EXPECT_TRUE(std::isnan(test->outputs(1, c)));
    }
  }
}

// Many tiles, several parts, and rows of codes that end with the buffer.
TEST_P(DecodeAttentionTest, LongRowsOfCodes) {
  for (const RowFormat& format : {kRowsX8, kRowsX4, kRowsX2, MixedRows(12)}) {
    Check({3, 64, 64, format}, {{1000}, {257}}, std::string(RowFormatName(format)));
    Check({4, 128, 96, format}, {{513}}, std::string(RowFormatName(format)) + ", wide");
  }
}

// Rows one of which has all the weight: what is left of the others is a digit or nothing.
TEST_P(DecodeAttentionTest, OneRowOfCodesHasAllTheWeight) {
  const auto test = MakeCase(10, {1, 16, 16, kRowsX8}, {{400}});
  for (int64_t k = 0; k < 16; ++k) {
    test->queries.Set(0, k, 100.0F);
    for (int64_t r = 0; r < 400; ++r) test->keys[0].Set(r, k, r == 60 ? 3.0F : -3.0F);
  }
  DecodeAttention({&test->head, 1}, kScale, pool_);
  for (int64_t c = 0; c < 16; ++c) {
    EXPECT_NEAR(test->outputs(0, c), test->values[0](60, c), 1e-6);
  }
}

TEST_P(DecodeAttentionTest, NaNReachesEveryOutputItTouches) {
  for (const RowFormat& format : kFormatsWithoutSteps) {
    const auto by_key = MakeCase(6, {2, 20, 20, format}, {{400}, {30}});
    by_key->keys[1].Set(29, 19, std::nanf(""));
    DecodeAttention({&by_key->head, 1}, kScale, pool_);
    const auto by_value = MakeCase(7, {2, 20, 20, format}, {{400}, {30}});
    by_value->values[0].Set(0, 7, std::nanf(""));
    DecodeAttention({&by_value->head, 1}, kScale, pool_);
    for (int64_t q = 0; q < 2; ++q) {
      for (int64_t c = 0; c < 20; ++c) {
        EXPECT_TRUE(std::isnan(by_key->outputs(q, c)));
        // With a scale for the row, all of the row is NaN.
        const bool touched = c == 7 || format.scales != RowScales::kNone;
        EXPECT_EQ(std::isnan(by_value->outputs(q, c)), touched);
      }
    }
  }
}

// Scores far apart: the maximum is subtracted before exponentials are taken.
TEST_P(DecodeAttentionTest, HugeScores) {
  const auto test = MakeCase(8, {1, 16, 16}, {{120}});
  for (int64_t k = 0; k < 16; ++k) {
    test->queries.Set(0, k, 1000.0F);
    test->keys[0].Set(60, k, 100.0F);
  }
  DecodeAttention({&test->head, 1}, kScale, pool_);
  for (int64_t c = 0; c < 16; ++c) {
    EXPECT_EQ(test->outputs(0, c), test->values[0](60, c));
  }
}

KVC_FOR_EVERY_SIMD_TARGET(DecodeAttentionTest);

// Dot products of bytes and of pairs have the same sums.
TEST(DecodeAttentionCodes, SameBitsWithoutVnni) {
  if (!HasVnni()) GTEST_SKIP() << "this CPU has no VNNI";
  ThreadPool pool(1);
  for (const RowFormat& format : {kRowsX8, kRowsX4, kRowsX2, MixedRows(12)}) {
    const auto with = MakeCase(11, {3, 72, 50, format}, {{600}, {9}});
    const auto without = MakeCase(11, {3, 72, 50, format}, {{600}, {9}});
    DecodeAttention({&with->head, 1}, kScale, pool);
    AllowVnni(false);
    DecodeAttention({&without->head, 1}, kScale, pool);
    AllowVnni(true);
    EXPECT_TRUE(SameBits(with->outputs, without->outputs)) << RowFormatName(format);
  }
}

TEST(DecodeAttentionErrors, NameWhatDoesNotFit) {
  ThreadPool pool(1);
  const auto no_rows = MakeCase(1, {1, 8, 8}, {{0}});
  EXPECT_KVC_ERROR(DecodeAttention({&no_rows->head, 1}, kScale, pool), kBadShape,
                   "at least one cached row");
  const auto wide = MakeCase(1, {1, 8, 8}, {{3, 9, 8}});
  EXPECT_KVC_ERROR(DecodeAttention({&wide->head, 1}, kScale, pool), kBadShape,
                   "key rows that fit queries of width 8, got width 9");
  for (RowBlock Segment::*rows : {&Segment::keys, &Segment::values}) {
    const auto refused = MakeCase(1, {1, 8, 8}, {{3}});
    (refused->segments[0].*rows).format = {RowElement::kInt8, RowScales::kFront, 32};
    EXPECT_KVC_ERROR(DecodeAttention({&refused->head, 1}, kScale, pool), kUnsupported,
                     "row format");
    const auto overlapping = MakeCase(1, {1, 8, 8}, {{3}});
    (overlapping->segments[0].*rows).stride = 31;
    EXPECT_KVC_ERROR(DecodeAttention({&overlapping->head, 1}, kScale, pool), kBadShape,
                     "f32 rows at least 32 bytes apart, got 31");
  }
  const auto beyond = MakeCase(1, {1, 8, 8, kRowsF32, 4}, {{3}});
  beyond->positions[0][2] = 50;
  EXPECT_KVC_ERROR(DecodeAttention({&beyond->head, 1}, kScale, pool), kBadShape, "position");
  const auto no_positions = MakeCase(1, {1, 8, 8, kRowsF32, 4}, {{3}});
  no_positions->segments[0].positions = nullptr;
  EXPECT_KVC_ERROR(DecodeAttention({&no_positions->head, 1}, kScale, pool), kBadShape,
                   "expected positions with a rebuild");
  DecodeAttention({}, kScale, pool);
}

}  // namespace
}  // namespace kvc::kernels
