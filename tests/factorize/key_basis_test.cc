#include "factorize/key_basis.h"

#include <cmath>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "core/base/rng.h"

namespace kvc::factorize {
namespace {

constexpr int64_t kWidth = 6;  // m
constexpr int64_t kTokens = 40;

linalg::Matrix RandomRows(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  linalg::Matrix a(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    // Graded and correlated columns, so that the objectives differ.
    double shared = rng.NextNormal();
    for (int64_t c = 0; c < cols; ++c) {
      a(r, c) = shared + rng.NextNormal() * std::pow(0.6, static_cast<double>(c));
    }
  }
  return a;
}

linalg::Matrix Gram(const linalg::Matrix& rows) {
  linalg::Matrix gram = linalg::Multiply(linalg::Transpose(rows.view()).view(), rows.view());
  for (double& value : gram.data) value /= static_cast<double>(rows.rows);
  return gram;
}

// k rebuild_r reduce_r by the definition: coordinates, then back.
linalg::Matrix Truncate(const linalg::Matrix& keys, const KeyBasis& basis, int64_t rank) {
  const linalg::Matrix latent =
      linalg::MultiplyTransposed(keys.view(), basis.reduce.view().RowRange(0, rank));  // [T, r]
  return linalg::MultiplyTransposed(latent.view(), basis.rebuild.view().ColRange(0, rank));
}

class KeyBasisTest : public ::testing::Test {
 protected:
  const linalg::Matrix keys_ = RandomRows(kTokens, kWidth, 1);
  const linalg::Matrix queries_ = RandomRows(kTokens, kWidth, 2);
  const std::vector<double> scale_ = {1.0, 0.2, 3.0, 0.7, 0.1, 2.0};
  const std::unique_ptr<linalg::Svd> svd_ = linalg::Svd::Create(linalg::SvdBackend::kLapack);

  // E |(k - k^) diag(scale)|^2 over the rows, by loops.
  [[nodiscard]] double ScaledError(const linalg::Matrix& truncated) const {
    double sum = 0.0;
    for (int64_t t = 0; t < kTokens; ++t) {
      for (int64_t d = 0; d < kWidth; ++d) {
        const double error = (keys_(t, d) - truncated(t, d)) * scale_[d];
        sum += error * error / kTokens;
      }
    }
    return sum;
  }
  // E over all (query, key) pairs of ((k - k^) q)^2, keys centred.
  [[nodiscard]] double LogitError(const linalg::Matrix& keys,
                                  const linalg::Matrix& truncated) const {
    double sum = 0.0;
    for (int64_t i = 0; i < kTokens; ++i) {
      for (int64_t t = 0; t < kTokens; ++t) {
        double logit = 0.0;
        for (int64_t d = 0; d < kWidth; ++d) {
          logit += queries_(i, d) * (keys(t, d) - truncated(t, d));
        }
        sum += logit * logit / (kTokens * kTokens);
      }
    }
    return sum;
  }
};

TEST_F(KeyBasisTest, ScaledErrorIsTheRestOfTheSpectrum) {
  const KeyBasis basis = ScaledBasis(Gram(keys_), scale_, *svd_);
  double rest = 0.0;
  for (int64_t rank = kWidth; rank >= 0; --rank) {
    EXPECT_NEAR(ScaledError(Truncate(keys_, basis, rank)), rest, 1e-10);
    if (rank > 0) rest += basis.spectrum[rank - 1];
  }
}

// No other pair of the same rank does better: random pairs, and the unscaled optimum.
TEST_F(KeyBasisTest, ScaledBasisBeatsOthersOfItsRank) {
  const KeyBasis best = ScaledBasis(Gram(keys_), scale_, *svd_);
  const KeyBasis unscaled = ScaledBasis(Gram(keys_), std::vector<double>(kWidth, 1.0), *svd_);
  for (int64_t rank = 1; rank < kWidth; ++rank) {
    const double error = ScaledError(Truncate(keys_, best, rank));
    EXPECT_LT(error, ScaledError(Truncate(keys_, unscaled, rank)));
    for (uint64_t seed = 10; seed < 20; ++seed) {
      KeyBasis other = best;
      Rng rng(seed);
      for (double& value : other.reduce.data) value += 1e-3 * rng.NextNormal();
      EXPECT_LE(error, ScaledError(Truncate(keys_, other, rank)) + 1e-12);
    }
  }
}

TEST_F(KeyBasisTest, LogitErrorIsTheRestOfTheSpectrum) {
  linalg::Matrix centred = keys_;
  for (int64_t d = 0; d < kWidth; ++d) {
    double mean = 0.0;
    for (int64_t t = 0; t < kTokens; ++t) mean += keys_(t, d) / kTokens;
    for (int64_t t = 0; t < kTokens; ++t) centred(t, d) -= mean;
  }
  const KeyBasis basis = LogitBasis(Gram(centred), Gram(queries_), *svd_);
  double rest = 0.0;
  for (int64_t rank = kWidth; rank >= 1; --rank) {
    const double error = LogitError(centred, Truncate(centred, basis, rank));
    EXPECT_NEAR(error, rest, 1e-9);
    const double all = LogitError(centred, linalg::Matrix(kTokens, kWidth));
    EXPECT_NEAR(RelativeLogitError(basis, rank, Gram(centred), Gram(queries_)),
                std::sqrt(error / all), 1e-7);
    rest += basis.spectrum[rank - 1];
  }
}

TEST_F(KeyBasisTest, FullRankIsTheIdentity) {
  for (const KeyBasis& basis :
       {ScaledBasis(Gram(keys_), scale_, *svd_), LogitBasis(Gram(keys_), Gram(queries_), *svd_)}) {
    const linalg::Matrix product = linalg::Multiply(basis.rebuild.view(), basis.reduce.view());
    for (int64_t r = 0; r < kWidth; ++r) {
      for (int64_t c = 0; c < kWidth; ++c) EXPECT_NEAR(product(r, c), r == c ? 1.0 : 0.0, 1e-9);
    }
  }
}

TEST_F(KeyBasisTest, RelativeErrorOfOneHead) {
  const KeyBasis basis = ScaledBasis(Gram(keys_), scale_, *svd_);
  const linalg::Matrix truncated = Truncate(keys_, basis, 2);
  double lost = 0.0;
  double all = 0.0;
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t d = 3; d < 6; ++d) {  // the second head of width 3
      const double weight = scale_[d] * scale_[d];
      lost += weight * std::pow(keys_(t, d) - truncated(t, d), 2.0);
      all += weight * std::pow(keys_(t, d), 2.0);
    }
  }
  EXPECT_NEAR(RelativeError(basis, 2, Gram(keys_), scale_, 3, 3), std::sqrt(lost / all), 1e-9);
}

TEST_F(KeyBasisTest, DimensionsThatNoQueryReadsDoNotDivideByZero) {
  std::vector<double> scale = scale_;
  scale[4] = 0.0;
  const KeyBasis basis = ScaledBasis(Gram(keys_), scale, *svd_);
  for (const double value : basis.rebuild.data) EXPECT_TRUE(std::isfinite(value));
}

// As good as LogitBasis but for the ridge, and a coordinate's variance alike on both sides.
TEST_F(KeyBasisTest, BalancedBasisSharesTheSpectrum) {
  const linalg::Matrix keys = Gram(keys_);
  const linalg::Matrix queries = Gram(queries_);
  const KeyBasis plain = LogitBasis(keys, queries, *svd_);
  const KeyBasis balanced = BalancedLogitBasis(keys, queries, *svd_);
  for (int64_t rank = 0; rank <= kWidth; ++rank) {
    const double expected = RelativeLogitError(plain, rank, keys, queries);
    const double error = RelativeLogitError(balanced, rank, keys, queries);
    EXPECT_GE(error, expected - 1e-7);
    EXPECT_LE(error, 1.02 * expected + 1e-7);
  }
  EXPECT_LE(RelativeLogitError(balanced, kWidth, keys, queries), 1e-7);
  double trace = 0.0;
  for (int64_t d = 0; d < kWidth; ++d) trace += keys(d, d);
  const linalg::Matrix k =
      linalg::MultiplyTransposed(keys_.view(), balanced.reduce.view());                 // [T, m]
  const linalg::Matrix q = linalg::Multiply(queries_.view(), balanced.rebuild.view());  // [T, m]
  const linalg::Matrix k_gram = Gram(k);
  const linalg::Matrix q_gram = Gram(q);
  for (int64_t i = 0; i < kWidth; ++i) {
    const double s = std::sqrt(balanced.spectrum[i]);
    double ridge = 0.0;  // what it adds to the coordinate's variance
    for (int64_t d = 0; d < kWidth; ++d) {
      ridge += 1e-3 * trace / kWidth * balanced.reduce(i, d) * balanced.reduce(i, d);
    }
    EXPECT_NEAR(k_gram(i, i) + ridge, s, 1e-9 * s) << i;
    EXPECT_NEAR(q_gram(i, i), s, 1e-9 * s) << i;
  }
}

// Calibration that never left a plane: what lies outside of it still comes back at full rank.
TEST_F(KeyBasisTest, BalancedBasisIsExactForUnseenKeys) {
  linalg::Matrix flat = keys_;
  for (int64_t t = 0; t < kTokens; ++t) flat(t, 2) = flat(t, 4) = 0.0;
  const KeyBasis basis = BalancedLogitBasis(Gram(flat), Gram(queries_), *svd_);
  const linalg::Matrix back = Truncate(keys_, basis, kWidth);
  for (int64_t i = 0; i < kTokens * kWidth; ++i) EXPECT_NEAR(back.data[i], keys_.data[i], 1e-6);
}

// tr(metric (I - P_r) gram (I - P_r)^T) is the sum of the dropped coordinates' spectrum, and no
// other basis of that rank has less: it is a truncated eigendecomposition in metric coordinates.
TEST_F(KeyBasisTest, MetricBasisCountsErrorsInOneUnit) {
  const linalg::Matrix gram = Gram(keys_);
  const linalg::Matrix metric = Gram(queries_);
  constexpr double kTinyRidge = 1e-9;
  const KeyBasis basis = MetricBasis(gram, metric, kTinyRidge, *svd_);
  const linalg::Matrix both = linalg::Multiply(basis.rebuild.view(), basis.reduce.view());
  for (int64_t r = 0; r < kWidth; ++r) {
    for (int64_t c = 0; c < kWidth; ++c) EXPECT_NEAR(both(r, c), r == c ? 1.0 : 0.0, 1e-6);
  }
  // An error of one in any coordinate costs one: rebuild^T metric rebuild = I.
  const linalg::Matrix unit =
      linalg::Multiply(linalg::Transpose(basis.rebuild.view()).view(),
                       linalg::Multiply(metric.view(), basis.rebuild.view()).view());
  // Coordinates are uncorrelated, and vary by their spectrum: reduce gram reduce^T = diag(e).
  const linalg::Matrix covariance = linalg::MultiplyTransposed(
      linalg::Multiply(basis.reduce.view(), gram.view()).view(), basis.reduce.view());
  for (int64_t r = 0; r < kWidth; ++r) {
    if (r > 0) {
      EXPECT_LE(basis.spectrum[r], basis.spectrum[r - 1]);
    }
    for (int64_t c = 0; c < kWidth; ++c) {
      EXPECT_NEAR(unit(r, c), r == c ? 1.0 : 0.0, 1e-5);
      EXPECT_NEAR(covariance(r, c), r == c ? basis.spectrum[r] : 0.0, 1e-6 * basis.spectrum[0]);
    }
  }
  const KeyBasis best = LogitBasis(gram, metric, *svd_);
  for (int64_t rank = 0; rank <= kWidth; ++rank) {
    EXPECT_NEAR(RelativeLogitError(basis, rank, gram, metric),
                RelativeLogitError(best, rank, gram, metric), 1e-5);
  }
}

// A metric that asks for nothing in some directions: what lies there comes back at full rank.
TEST_F(KeyBasisTest, MetricBasisIsExactWhereNothingIsAsked) {
  linalg::Matrix flat = queries_;
  for (int64_t t = 0; t < flat.rows; ++t) flat(t, 2) = flat(t, 4) = 0.0;
  const KeyBasis basis = MetricBasis(Gram(keys_), Gram(flat), 1e-3, *svd_);
  const linalg::Matrix back = Truncate(keys_, basis, kWidth);
  for (int64_t i = 0; i < kTokens * kWidth; ++i) EXPECT_NEAR(back.data[i], keys_.data[i], 1e-6);
}

class SelectPairsTest : public KeyBasisTest {
 protected:
  // keys with everything but the pairs set to zero
  [[nodiscard]] linalg::Matrix Keep(std::span<const int64_t> pairs) const {
    linalg::Matrix kept(kTokens, kWidth);
    for (int64_t t = 0; t < kTokens; ++t) {
      for (const int64_t p : pairs) {
        for (const int64_t d : {p, p + kWidth / 2}) kept(t, d) = keys_(t, d);
      }
    }
    return kept;
  }
};

// The prefix of every length against the definition by loops; each step drops the cheapest pair.
TEST_F(SelectPairsTest, DropsTheCheapestPairEachTime) {
  const PairBasis selected = SelectPairs(Gram(keys_), Gram(queries_));
  ASSERT_EQ(selected.pairs.size(), static_cast<size_t>(kWidth / 2));
  const double all = LogitError(keys_, linalg::Matrix(kTokens, kWidth));
  for (size_t count = 0; count <= selected.pairs.size(); ++count) {
    const std::span<const int64_t> kept(selected.pairs.data(), count);
    const double lost = LogitError(keys_, Keep(kept));
    const double error = RelativeLogitError(selected.basis, 2 * static_cast<int64_t>(count),
                                            Gram(keys_), Gram(queries_));
    EXPECT_NEAR(error * error * all, lost, 1e-10 * all);
    if (count == selected.pairs.size()) break;
    // Another of the pairs that were there one step before is not cheaper to drop.
    for (size_t other = 0; other < count; ++other) {
      std::vector<int64_t> instead(selected.pairs.begin(), selected.pairs.begin() + count + 1);
      instead.erase(instead.begin() + other);
      EXPECT_GE(LogitError(keys_, Keep(instead)), lost - 1e-12);
    }
  }
}

TEST_F(SelectPairsTest, CoordinatesAreTheDimensionsOfThePairs) {
  const PairBasis selected = SelectPairs(Gram(keys_), Gram(queries_));
  for (size_t i = 0; i < selected.pairs.size(); ++i) {
    for (int64_t d = 0; d < kWidth; ++d) {
      const int64_t row = 2 * static_cast<int64_t>(i);
      EXPECT_EQ(selected.basis.reduce(row, d), d == selected.pairs[i] ? 1.0 : 0.0);
      EXPECT_EQ(selected.basis.reduce(row + 1, d), d == selected.pairs[i] + kWidth / 2 ? 1.0 : 0.0);
    }
  }
}

// Layers and heads of zeros, which ask for nothing or have nothing: finite at every rank, and the
// full rank loses nothing.
TEST_F(KeyBasisTest, ZerosHaveABasis) {
  const linalg::Matrix none(kWidth, kWidth);
  const linalg::Matrix gram = Gram(keys_);
  const std::vector<double> nothing(kWidth, 0.0);
  for (const KeyBasis& basis :
       {ScaledBasis(gram, nothing, *svd_), ScaledBasis(none, nothing, *svd_),
        ScaledBasis(none, scale_, *svd_), LogitBasis(none, Gram(queries_), *svd_),
        BalancedLogitBasis(gram, none, *svd_), BalancedLogitBasis(none, Gram(queries_), *svd_),
        BalancedLogitBasis(none, none, *svd_), SelectPairs(none, none).basis}) {
    for (const auto* values : {&basis.reduce.data, &basis.rebuild.data, &basis.spectrum}) {
      for (const double value : *values) ASSERT_TRUE(std::isfinite(value));
    }
    for (int64_t rank = 1; rank <= kWidth; ++rank) {
      EXPECT_TRUE(std::isfinite(RelativeLogitError(basis, rank, gram, none)));
    }
    const linalg::Matrix same = Truncate(keys_, basis, kWidth);
    for (size_t i = 0; i < same.data.size(); ++i) ASSERT_NEAR(same.data[i], keys_.data[i], 1e-6);
  }
}

}  // namespace
}  // namespace kvc::factorize
