#include "kernels/matmul.h"

#include <limits>
#include <optional>

#include <gtest/gtest.h>

#include "kernels/cpu/product.h"
#include "tests/kernels/simd_target_test.h"
#include "tests/kernels/test_arrays.h"
#include "tests/support/expect_error.h"

namespace kvc::kernels {
namespace {

struct Sum {
  double value = 0.0;
  double magnitude = 0.0;  // sum of absolute terms
  void Add(double term) {
    value += term;
    magnitude += std::abs(term);
  }
};

// |float sum of n products - exact| <= n u sum |terms| in any order (Higham 2002, section 4.2), one
// more rounding for the bias.
double Bound(int64_t terms, const Sum& sum) {
  return static_cast<double>(terms + 2) * kUnit * sum.magnitude + 1e-37;
}

WeightView ViewOf(const TestArray& w) {
  const DType dtype = DTypeFromShortName(RowFormatName(w.format));
  return {w.bytes.data(), dtype, w.rows, w.cols};
}

void ExpectProduct(const TestArray& x,
                   const TestArray& w,
                   const TestArray* bias,
                   const TestArray& y,
                   double rounding = 0.0) {
  for (int64_t t = 0; t < x.rows; ++t) {
    for (int64_t n = 0; n < w.rows; ++n) {
      Sum sum;
      for (int64_t k = 0; k < w.cols; ++k) {
        sum.Add(x(t, k) * w(n, k));
      }
      if (bias != nullptr) {
        sum.Add((*bias)(0, n));
      }
      ASSERT_LE(std::abs(y(t, n) - sum.value), Bound(w.cols, sum) + rounding * sum.magnitude)
          << "t " << t << " of " << x.rows << ", n " << n << " of " << w.rows << ", in " << w.cols;
    }
  }
}

class PackedWeightTest : public SimdTargetTest {
 protected:
  void Check(int64_t rows, int64_t out, int64_t in, DType dtype, bool with_bias) {
    Rng rng(static_cast<uint64_t>(rows * 1000003 + out * 1009 + in));
    const TestArray w = RandomArray(rng, out, in, dtype);
    const TestArray x = RandomArray(rng, rows, in, DType::kF32, 3);
    const TestArray bias = RandomArray(rng, 1, out);
    TestArray y = RandomArray(rng, rows, out, DType::kF32, 5);
    const PackedWeight weight(ViewOf(w), pool_, {.by_library = false});
    weight.Apply(x.view(), with_bias ? bias.view().data : nullptr, y.view(), pool_);
    ExpectProduct(x, w, with_bias ? &bias : nullptr, y);
    for (int64_t t = 0; t + 1 < rows; ++t) {
      ASSERT_TRUE(std::isnan(y(t, out))) << "wrote behind a row";
    }
  }
  ThreadPool pool_{2};
};

TEST_P(PackedWeightTest, EveryDTypeAndRowCount) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    for (const int64_t rows : {1, 2, 3, 4, 5, 7, 8, 9, 12, 13, 23, 50}) {
      Check(rows, 97, 75, dtype, rows % 2 == 0);
    }
  }
}

TEST_P(PackedWeightTest, OddWidths) {
  for (int64_t in = 1; in <= 200; in += 1 + in / 40) {
    Check(1, 5, in, DType::kBF16, true);
    Check(3, 2, in, DType::kF32, false);
    Check(11, 35, in, DType::kF16, true);
  }
  for (const int64_t out : {1, 3, 31, 32, 33, 64, 96, 100, 193}) {
    Check(1, out, 40, DType::kF32, true);
    Check(10, out, 40, DType::kF32, true);
  }
}

TEST_P(PackedWeightTest, InnerSizesBeyondOneBlock) {
  Check(14, 40, 1537, DType::kF32, true);
  Check(2, 9, 1537, DType::kBF16, true);
  Check(300, 100, 17, DType::kF32, true);
}

TEST_P(PackedWeightTest, EmptySizes) {
  Check(0, 5, 5, DType::kF32, true);
  Check(3, 0, 5, DType::kF32, false);
  Check(3, 5, 0, DType::kF32, true);
  Check(12, 5, 0, DType::kF32, true);
}

TEST_P(PackedWeightTest, PacksOnlyWhatStaysTheSame) {
  Rng rng(7);
  const TestArray narrow = RandomArray(rng, 37, 53, DType::kBF16);
  TestArray wide = RandomArray(rng, 37, 53);
  for (int64_t r = 0; r < wide.rows; ++r) {
    for (int64_t c = 0; c < wide.cols; ++c) {
      wide.Set(r, c, static_cast<float>(narrow(r, c)));
    }
  }
  const PackedWeight packed(ViewOf(wide), pool_);
  EXPECT_EQ(packed.packed_bytes(), 37 * 53 * 2);
  const PackedWeight told_not_to(ViewOf(wide), pool_, {.lossless_bf16 = false});
  EXPECT_EQ(told_not_to.packed_bytes(), 0);
  const TestArray x = RandomArray(rng, 2, 53);
  TestArray y = RandomArray(rng, 2, 37);
  TestArray same = RandomArray(rng, 2, 37);
  packed.Apply(x.view(), nullptr, y.view(), pool_);
  told_not_to.Apply(x.view(), nullptr, same.view(), pool_);
  EXPECT_TRUE(SameBits(y, same));
  wide.Set(36, 52, 1.0F + 0x1.0p-20F);
  EXPECT_EQ(PackedWeight(ViewOf(wide), pool_).packed_bytes(), 0);
}

TEST_P(PackedWeightTest, SameBitsForAnyNumberOfThreads) {
  Rng rng(8);
  const TestArray w = RandomArray(rng, 700, 130);
  ThreadPool one(1);
  for (const int64_t rows : {1, 6, 300}) {
    const TestArray x = RandomArray(rng, rows, 130);
    TestArray y = RandomArray(rng, rows, 700);
    TestArray same = y;
    PackedWeight(ViewOf(w), pool_).Apply(x.view(), nullptr, y.view(), pool_);
    PackedWeight(ViewOf(w), one).Apply(x.view(), nullptr, same.view(), one);
    EXPECT_TRUE(SameBits(y, same)) << rows << " rows";
  }
}

// A sequence gives the same logits whether it is decoded alone or beside up to seven others.
TEST_P(PackedWeightTest, FewRowsDoNotDependOnOneAnother) {
  Rng rng(9);
  const TestArray w = RandomArray(rng, 50, 77, DType::kBF16);
  const PackedWeight weight(ViewOf(w), pool_);
  const TestArray x = RandomArray(rng, 8, 77);
  TestArray all = RandomArray(rng, 8, 50);
  weight.Apply(x.view(), nullptr, all.view(), pool_);
  for (int64_t t = 0; t < 8; ++t) {
    TestArray one = RandomArray(rng, 1, 50);
    weight.Apply(x.view().RowRange(t, 1), nullptr, one.view(), pool_);
    for (int64_t n = 0; n < 50; ++n) {
      ASSERT_EQ(one(0, n), all(t, n));
    }
  }
}

TEST_P(PackedWeightTest, NaNAndInfinityReachTheOutput) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Rng rng(10);
    TestArray w = RandomArray(rng, 40, 21, dtype);
    w.Set(3, 20, std::nanf(""));
    w.Set(5, 0, INFINITY);
    const PackedWeight weight(ViewOf(w), pool_);
    for (const int64_t rows : {1, 12}) {
      TestArray x = RandomArray(rng, rows, 21);
      x.Set(0, 0, 1.0F);
      TestArray y = RandomArray(rng, rows, 40);
      weight.Apply(x.view(), nullptr, y.view(), pool_);
      EXPECT_TRUE(std::isnan(y(0, 3)));
      EXPECT_EQ(y(0, 5), INFINITY);
      EXPECT_FALSE(std::isnan(y(0, 4)));
    }
  }
}

TEST_P(PackedWeightTest, RoundsToTheNearestBF16) {
  const float inf = std::numeric_limits<float>::infinity();
  const std::vector<float> numbers = {0.0F,
                                      -0.0F,
                                      1.0F,
                                      0x1.01p0F,
                                      0x1.03p0F,
                                      0x1.0101p0F,
                                      -0x1.fep3F,
                                      -0x1.ffp3F,
                                      0x1.fffffep127F,
                                      inf,
                                      -inf,
                                      0x1p-149F,
                                      std::numeric_limits<float>::quiet_NaN(),
                                      -3.14159F,
                                      1e-30F};
  std::vector<uint16_t> rounded(numbers.size());
  RoundToBF16(numbers.data(), std::ssize(numbers), rounded.data());
  for (size_t i = 0; i < numbers.size(); ++i) {
    uint16_t expected = 0;
    ConvertFromFloat(&numbers[i], 1, DType::kBF16, &expected);
    if (std::isnan(numbers[i])) {
      EXPECT_GT(rounded[i] & 0x7fffU, 0x7f80U);
    } else {
      EXPECT_EQ(rounded[i], expected) << numbers[i];
    }
  }
}

KVC_FOR_EVERY_SIMD_TARGET(PackedWeightTest);

// Many rows as a model multiplies them: by oneDNN where it has kernels for this processor. The
// bounds hold without it too.
class LibraryProductTest : public testing::Test {
 protected:
  // One weight, rows of x and their products.
  struct Product {
    TestArray x, y;
  };
  Product Apply(const PackedWeight& weight, const TestArray& x, InputRounding rounding) {
    Rng rng(3);
    Product product = {x, RandomArray(rng, x.rows, weight.out(), DType::kF32, 5)};
    weight.Apply(x.view(), bias_ ? bias_->view().data : nullptr, product.y.view(), pool_, rounding);
    return product;
  }
  void Check(int64_t rows, int64_t out, int64_t in, DType dtype) {
    Rng rng(static_cast<uint64_t>(rows * 1000003 + out * 1009 + in));
    const TestArray w = RandomArray(rng, out, in, dtype);
    const TestArray x = RandomArray(rng, rows, in, DType::kF32, rows % 3);
    bias_.reset();
    if (rows % 2 == 1) bias_ = RandomArray(rng, 1, out);
    const PackedWeight weight(ViewOf(w), pool_);
    for (const auto rounding : {InputRounding::kToBF16, InputRounding::kNone}) {
      const bool rounds = dtype == DType::kBF16 && rounding == InputRounding::kToBF16;
      const Product product = Apply(weight, x, rounding);
      ExpectProduct(x, w, bias_ ? &*bias_ : nullptr, product.y, rounds ? 0x1.0p-8 : 0.0);
      for (int64_t t = 0; t + 1 < rows; ++t) {
        ASSERT_TRUE(std::isnan(product.y(t, out))) << "wrote behind a row";
      }
    }
  }

  ThreadPool pool_{2};
  std::optional<TestArray> bias_;
};

TEST_F(LibraryProductTest, EveryDTypeAndOddSizes) {
  for (const DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    Check(9, 97, 75, dtype);
    Check(10, 1, 1, dtype);
    Check(33, 385, 130, dtype);
    Check(257, 100, 64, dtype);
    Check(12, 5, 1537, dtype);
  }
}

TEST_F(LibraryProductTest, FloatsThatAreBF16AreNotRounded) {
  Rng rng(4);
  const TestArray narrow = RandomArray(rng, 50, 300, DType::kBF16);
  TestArray wide = RandomArray(rng, 50, 300);
  for (int64_t r = 0; r < wide.rows; ++r) {
    for (int64_t c = 0; c < wide.cols; ++c) wide.Set(r, c, static_cast<float>(narrow(r, c)));
  }
  const PackedWeight weight(ViewOf(wide), pool_);
  ASSERT_GT(weight.packed_bytes(), 0);
  const TestArray x = RandomArray(rng, 20, 300);
  ExpectProduct(x, wide, nullptr, Apply(weight, x, InputRounding::kToBF16).y);
}

// Chunks of a prompt give a token the same activations, however long they are.
TEST_F(LibraryProductTest, ARowDoesNotDependOnHowManyStandBesideIt) {
  Rng rng(5);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const TestArray w = RandomArray(rng, 200, 1100, dtype);
    const PackedWeight weight(ViewOf(w), pool_);
    const TestArray x = RandomArray(rng, 300, 1100);
    const TestArray all = Apply(weight, x, InputRounding::kToBF16).y;
    for (const int64_t rows : {9, 16, 31, 64, 150, 299}) {
      TestArray some = RandomArray(rng, rows, 200);
      weight.Apply(x.view().RowRange(0, rows), nullptr, some.view(), pool_);
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t n = 0; n < 200; ++n) {
          ASSERT_EQ(some(t, n), all(t, n)) << rows << " rows, " << t << ", " << n;
        }
      }
    }
  }
}

TEST_F(LibraryProductTest, SameBitsForAnyNumberOfThreads) {
  Rng rng(6);
  const TestArray w = RandomArray(rng, 700, 130, DType::kBF16);
  const TestArray x = RandomArray(rng, 300, 130);
  TestArray y = RandomArray(rng, 300, 700);
  const PackedWeight weight(ViewOf(w), pool_);
  weight.Apply(x.view(), nullptr, y.view(), pool_);
  for (const int threads : {1, 3, 4}) {
    ThreadPool pool(threads);
    TestArray same = RandomArray(rng, 300, 700);
    weight.Apply(x.view(), nullptr, same.view(), pool);
    EXPECT_TRUE(SameBits(y, same)) << threads << " threads";
  }
}

TEST(PackedWeightErrors, NameWhatDoesNotFit) {
  ThreadPool pool(1);
  std::vector<float> w(12);
  const PackedWeight weight({w.data(), DType::kF32, 3, 4}, pool);
  std::vector<float> x(5);
  std::vector<float> y(3);
  const ConstMatrixF wide(x.data(), 1, 5);
  EXPECT_KVC_ERROR(weight.Apply(wide, nullptr, {y.data(), 1, 3}, pool), kBadShape, "x [1, 5]");
  const WeightView integers = {w.data(), DType::kI32, 3, 4};
  EXPECT_KVC_ERROR(PackedWeight(integers, pool), kUnsupported, "got I32");
}

}  // namespace
}  // namespace kvc::kernels
