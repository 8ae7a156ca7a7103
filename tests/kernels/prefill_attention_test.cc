#include <numeric>

#include <gtest/gtest.h>

#include "kernels/attention.h"
#include "tests/kernels/attention_reference.h"
#include "tests/kernels/simd_target_test.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

constexpr float kScale = 0.25F;

struct Shape {
  int64_t first = 0;
  int64_t tokens = 1;
  int64_t queries = 1;
  int64_t key_width = 64;
  int64_t value_width = 64;
  RowFormat format = {};
  int64_t rank = 0;
  bool norm = false;
  int64_t window = 0;
};

struct Case {
  Shape shape;
  TestArray keys;
  TestArray values;
  std::vector<TestArray> queries;
  std::vector<TestArray> outputs;
  TestRebuild rebuild;
  KeyRebuild rebuild_view;
  PrefillHead head;
};

std::unique_ptr<Case> MakeCase(uint64_t seed, const Shape& shape) {
  Rng rng(seed);
  auto test = std::make_unique<Case>();
  test->shape = shape;
  const int64_t rows = shape.first + shape.tokens;
  const int64_t width = shape.rank > 0 ? shape.rank : shape.key_width;
  test->keys = RandomArray(rng, rows, width, shape.format, 1);
  test->values = RandomArray(rng, rows, shape.value_width, shape.format, 2);
  for (int64_t h = 0; h < shape.queries; ++h) {
    test->queries.push_back(RandomArray(rng, shape.tokens, shape.key_width, DType::kF32, 3));
    test->outputs.push_back(RandomArray(rng, shape.tokens, shape.value_width, DType::kF32, 4));
  }
  if (shape.rank > 0) {
    test->rebuild = RandomRebuild(rng, shape.key_width, shape.rank, rows, shape.norm, shape.norm);
    test->rebuild_view = test->rebuild.view();
    test->head.rebuild = &test->rebuild_view;
  }
  test->head.keys = test->keys.block();
  test->head.values = test->values.block();
  for (size_t h = 0; h < test->queries.size(); ++h) {
    test->head.queries.push_back(test->queries[h].view());
    test->head.outputs.push_back(test->outputs[h].view());
  }
  return test;
}

// Checks rows 0, step, 2 step, ... and the last one of each head. `more`: beyond the bound of float
// sums.
void ExpectMatches(const Case& test, int64_t step, double more = 0.0) {
  std::vector<Token> tokens;
  for (int64_t r = 0; r < test.keys.rows; ++r) {
    tokens.push_back({test.head.rebuild == nullptr ? StoredKey(test.keys, r)
                                                   : RebuiltKey(test.keys, r, r, test.rebuild),
                      StoredValue(test.values, r)});
  }
  for (size_t h = 0; h < test.queries.size(); ++h) {
    for (int64_t t = test.shape.tokens - 1; t >= 0; t -= step) {
      const int64_t end = test.shape.first + t + 1;
      const int64_t begin =
          test.shape.window > 0 ? std::max<int64_t>(0, end - test.shape.window) : 0;
      const std::span<const Token> seen(tokens.data() + begin, static_cast<size_t>(end - begin));
      const Bounded expected =
          AttentionReference(StoredValue(test.queries[h], t), seen, kScale, test.shape.value_width);
      for (int64_t c = 0; c < test.shape.value_width; ++c) {
        const auto i = static_cast<size_t>(c);
        ASSERT_LE(std::abs(test.outputs[h](t, c) - expected.value[i]), expected.bound[i] + more)
            << "head " << h << ", token " << t << " of " << test.shape.tokens << " after "
            << test.shape.first << ", column " << c;
      }
    }
  }
}

class PrefillAttentionTest : public SimdTargetTest {
 protected:
  void Check(const Shape& shape, int64_t step = 1) {
    const auto test = MakeCase(++seed_, shape);
    PrefillAttention({&test->head, 1}, shape.first, kScale, pool_, shape.window);
    ExpectMatches(*test, step);
  }
  ThreadPool pool_{2};
  uint64_t seed_ = 0;
};

TEST_P(PrefillAttentionTest, EveryFormatAndGroupSize) {
  for (const RowFormat& format : kFormatsWithoutSteps) {
    for (const int64_t queries : {1, 3, 8}) {
      Check({0, 50, queries, 64, 64, format}, 7);
    }
  }
}

TEST_P(PrefillAttentionTest, OddSizes) {
  for (int64_t width = 1; width <= 200; width += 1 + width / 10) {
    Check({width % 5, 14, 2, width, 201 - width, kRowsF32}, 5);
    Check({width % 5, 14, 2, width, 201 - width, kRowsInt8}, 5);
  }
  for (const int64_t tokens : {1, 2, 11, 12, 13, 47, 48, 49, 97, 193}) {
    Check({0, tokens, 2, 20, 24, kRowsF16}, 1 + tokens / 10);
    Check({200, tokens, 1, 20, 24, kRowsF32}, 1 + tokens / 10);
  }
}

TEST_P(PrefillAttentionTest, SeveralBlocksOfKeys) {
  Check({0, 1000, 1, 16, 16, kRowsBF16}, 37);
  Check({1900, 100, 2, 16, 16, kRowsF32}, 9);
  Check({955, 10, 1, 16, 16, kRowsF32});  // the last rows' own keys begin the second block
  Check({959, 1, 1, 16, 16, kRowsF32});
  Check({960, 1, 1, 16, 16, kRowsF32});
}

// Windows of a key, around the edges of strips, tiles and blocks, and longer than the sequence.
TEST_P(PrefillAttentionTest, Windows) {
  for (const int64_t window : {1, 2, 12, 13, 48, 191, 192, 193, 960, 3000}) {
    for (const auto& [first, tokens] :
         {std::pair<int64_t, int64_t>(0, 230), {300, 60}, {1900, 100}}) {
      Shape shape{first, tokens, 2, 16, 16, kRowsF32};
      shape.window = window;
      Check(shape, 3);
    }
  }
  Shape latent{130, 70, 2, 32, 40, kRowsF16, 17, true};
  latent.window = 20;
  Check(latent, 5);
}

TEST_P(PrefillAttentionTest, Rebuild) {
  Check({0, 60, 3, 64, 64, kRowsF32, 48}, 7);
  Check({130, 70, 2, 32, 40, kRowsF16, 17, true}, 7);
  Check({950, 20, 1, 8, 8, kRowsF32, 5, true}, 3);
  Check({130, 70, 2, 32, 40, kRowsInt8, 17, true}, 7);
}

TEST_P(PrefillAttentionTest, ManyHeadsSameBitsForAnyNumberOfThreads) {
  ThreadPool one(1);
  std::vector<std::unique_ptr<Case>> cases;
  std::vector<std::unique_ptr<Case>> same;
  std::vector<PrefillHead> heads;
  std::vector<PrefillHead> same_heads;
  for (int64_t h = 0; h < 3; ++h) {
    const Shape shape{20, 150, 2, 16 + h, 32 - h, kRowsF32, h == 1 ? 9 : 0};
    cases.push_back(MakeCase(90 + static_cast<uint64_t>(h), shape));
    same.push_back(MakeCase(90 + static_cast<uint64_t>(h), shape));
    heads.push_back(cases.back()->head);
    same_heads.push_back(same.back()->head);
  }
  PrefillAttention(heads, 20, kScale, pool_);
  PrefillAttention(same_heads, 20, kScale, one);
  for (size_t h = 0; h < cases.size(); ++h) {
    ExpectMatches(*cases[h], 11);
    for (size_t q = 0; q < 2; ++q) {
      EXPECT_TRUE(SameBits(cases[h]->outputs[q], same[h]->outputs[q]));
    }
  }
}

TEST_P(PrefillAttentionTest, NaNReachesTheRowsThatSeeIt) {
  const auto test = MakeCase(4, {0, 40, 1, 16, 16});
  test->keys.Set(25, 3, std::nanf(""));
  PrefillAttention({&test->head, 1}, 0, kScale, pool_);
  for (int64_t t = 0; t < 40; ++t) {
    EXPECT_EQ(std::isnan(test->outputs[0](t, 0)), t >= 25) << t;
  }
}

// Holds keys to what the reference makes of latents at these positions.
void ExpectRebuilt(const TestArray& keys,
                   const TestArray& latents,
                   std::span<const int32_t> positions,
                   const TestRebuild& rebuild) {
  for (int64_t r = 0; r < keys.rows; ++r) {
    const Bounded expected = RebuiltKey(latents, r, positions[static_cast<size_t>(r)], rebuild);
    for (int64_t d = 0; d < keys.cols; ++d) {
      const auto i = static_cast<size_t>(d);
      ASSERT_LE(std::abs(keys(r, d) - expected.value[i]), expected.bound[i])
          << RowFormatName(latents.block().format);
    }
  }
}

// Keys rebuilt for scorers are those of attention.
TEST_P(PrefillAttentionTest, RebuildKeys) {
  for (const int64_t rows : {0, 1, 13, 100}) {
    Rng rng(5);
    const TestArray latents = RandomArray(rng, rows, 19, DType::kF16, 1);
    TestRebuild rebuild = RandomRebuild(rng, 44, 19, 120, true, rows == 13);
    SetUnitRows(rows % 2 == 0 ? 0 : 12, &rebuild.b);
    std::vector<int32_t> positions(static_cast<size_t>(rows));
    std::iota(positions.rbegin(), positions.rend(), 7);
    TestArray keys = RandomArray(rng, rows, 44, DType::kF32, 2);
    RebuildKeys(latents.block(), positions, rebuild.view(), keys.view());
    ExpectRebuilt(keys, latents, positions, rebuild);
  }
}

// The first columns of stored rows, as tiers' losses read them.
TEST_P(PrefillAttentionTest, RebuildKeysFromPrefixes) {
  for (const RowFormat& format : kFormatsWithoutSteps) {
    Rng rng(6);
    const TestArray latents = RandomArray(rng, 21, 19, format, 1);
    TestArray prefix = latents;
    prefix.cols = 7;
    const TestRebuild rebuild = RandomRebuild(rng, 44, 19, 120, false, false);
    std::vector<int32_t> positions(21);
    std::iota(positions.begin(), positions.end(), 0);
    TestArray keys = RandomArray(rng, 21, 44, kRowsF32, 2);
    RebuildKeys(prefix.block(), positions, rebuild.view(), keys.view());
    ExpectRebuilt(keys, prefix, positions, rebuild);
  }
}

// Latents in few bits are the numbers that their codes stand for.
TEST_P(PrefillAttentionTest, RebuildKeysFromCodes) {
  for (const RowFormat& format : {kRowsX8, kRowsX4, kRowsX2, MixedRows(12)}) {
    Rng rng(7);
    const TestArray latents = RandomArray(rng, 21, 40, format, 1);
    const TestRebuild rebuild = RandomRebuild(rng, 44, 40, 120, true, false);
    std::vector<int32_t> positions(21);
    std::iota(positions.begin(), positions.end(), 3);
    TestArray keys = RandomArray(rng, 21, 44, kRowsF32, 2);
    RebuildKeys(latents.block(), positions, rebuild.view(), keys.view());
    ExpectRebuilt(keys, latents, positions, rebuild);
  }
}

KVC_FOR_EVERY_SIMD_TARGET(PrefillAttentionTest);

// Queries and probabilities are rounded where the processor multiplies bf16; the bounds hold
// elsewhere too.
class RoundedPrefillTest : public testing::Test {
 protected:
  // Numbers are below 1 and logits of a few units: each rounding moves a logit by up to 2^-9 of its
  // terms' sum, about 8 kScale, and a probability by 2^-9 of itself.
  static constexpr double kRounded = 0.02;

  void Check(const Shape& shape, int64_t step = 1) {
    const auto test = MakeCase(++seed_, shape);
    PrefillAttention({&test->head, 1}, shape.first, kScale, pool_, shape.window,
                     InputRounding::kToBF16);
    ExpectMatches(*test, step, kRounded);
  }
  ThreadPool pool_{2};
  uint64_t seed_ = 40;
};

TEST_F(RoundedPrefillTest, OddSizesAndSeveralBlocks) {
  for (const int64_t queries : {1, 3, 8, 200}) Check({0, 50, queries, 64, 64, kRowsBF16}, 7);
  for (int64_t width = 1; width <= 200; width += 1 + width / 5) {
    Check({width % 5, 17, 2, width, 201 - width, kRowsBF16}, 5);
  }
  for (const int64_t tokens : {16, 63, 64, 65, 192, 193, 300}) {
    Check({200, tokens, 3, 20, 24, kRowsBF16}, 1 + tokens / 10);
  }
  Check({0, 1100, 1, 16, 16, kRowsBF16}, 37);
  Check({2040, 100, 2, 16, 16, kRowsBF16}, 9);
  for (const int64_t first : {1007, 1008, 1023, 1024}) Check({first, 17, 1, 16, 16, kRowsBF16});
  Check({5, 40, 2, 16, 16, kRowsF16});  // floats: not rounded
}

TEST_F(RoundedPrefillTest, Windows) {
  for (const int64_t window : {1, 2, 16, 64, 255, 256, 257, 1024, 3000}) {
    for (const auto& [first, tokens] :
         {std::pair<int64_t, int64_t>(0, 300), {300, 60}, {2000, 100}}) {
      Shape shape{first, tokens, 2, 16, 16, kRowsBF16};
      shape.window = window;
      Check(shape, 3);
    }
  }
}

TEST_F(RoundedPrefillTest, Latents) {
  Check({0, 60, 3, 64, 64, kRowsBF16, 48}, 7);
  Check({250, 70, 2, 32, 40, kRowsBF16, 17, true}, 7);
}

TEST_F(RoundedPrefillTest, HeadsOfSeveralWidthsSameBitsForAnyNumberOfThreads) {
  const auto run = [&](int threads) {
    ThreadPool pool(threads);
    std::vector<std::unique_ptr<Case>> cases;
    std::vector<PrefillHead> heads;
    for (int64_t h = 0; h < 3; ++h) {
      cases.push_back(
          MakeCase(90 + static_cast<uint64_t>(h), {20, 150, 2, 16 + h, 32 - h, kRowsBF16}));
      heads.push_back(cases.back()->head);
    }
    PrefillAttention(heads, 20, kScale, pool, 0, InputRounding::kToBF16);
    return cases;
  };
  const auto cases = run(2);
  for (const int threads : {1, 3}) {
    const auto same = run(threads);
    for (size_t h = 0; h < cases.size(); ++h) {
      ExpectMatches(*cases[h], 11, kRounded);
      for (size_t q = 0; q < 2; ++q) {
        EXPECT_TRUE(SameBits(cases[h]->outputs[q], same[h]->outputs[q]));
      }
    }
  }
}

TEST(PrefillAttentionErrors, NameWhatDoesNotFit) {
  ThreadPool pool(1);
  const auto test = MakeCase(1, {3, 4, 1, 8, 8});
  EXPECT_KVC_ERROR(PrefillAttention({&test->head, 1}, 4, kScale, pool), kBadShape,
                   "expected 8 keys");
  test->head.outputs[0].cols = 7;
  EXPECT_KVC_ERROR(PrefillAttention({&test->head, 1}, 3, kScale, pool), kBadShape, "width");
  PrefillAttention({}, 0, kScale, pool);
}

}  // namespace
}  // namespace kvc::kernels
