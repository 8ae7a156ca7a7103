// The latent that several heads share: its loss by samples, what the refinement must not break.

#include "factorize/joint_basis.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "core/base/rng.h"

namespace kvc::factorize {
namespace {

constexpr int64_t kHead = 5;  // D
constexpr int64_t kTokens = 60;

linalg::Matrix RandomMatrix(int64_t rows, int64_t cols, uint64_t seed) {
  Rng rng(seed);
  linalg::Matrix a(rows, cols);
  for (int64_t r = 0; r < rows; ++r) {
    const double shared = rng.NextNormal();
    for (int64_t c = 0; c < cols; ++c) {
      a(r, c) = shared + rng.NextNormal() * std::pow(0.8, static_cast<double>((c + 3 * r) % 11));
    }
  }
  return a;
}

linalg::Matrix Gram(const linalg::Matrix& rows) {
  return linalg::Multiply(linalg::Transpose(rows.view()).view(), rows.view());
}

// Keys of all heads, and for each head its own samples of them and of queries.
struct Problem {
  std::vector<linalg::Matrix> keys;     // [heads] of [T, m]
  std::vector<linalg::Matrix> queries;  // [heads] of [T, D]
  std::vector<HeadErrorWeights> heads;
};

Problem RandomProblem(int64_t count, uint64_t seed) {
  Problem problem;
  for (int64_t h = 0; h < count; ++h) {
    problem.keys.push_back(RandomMatrix(kTokens, count * kHead, 100 * seed + h));
    problem.queries.push_back(RandomMatrix(kTokens, kHead, 100 * seed + 50 + h));
    problem.heads.push_back({h * kHead, Gram(problem.queries.back()), Gram(problem.keys.back())});
  }
  return problem;
}

// Sum over heads and all pairs of their samples of the squared error of a query's product.
double SampledLoss(const Problem& problem, const KeyBasis& basis, int64_t rank) {
  double loss = 0.0;
  for (size_t h = 0; h < problem.heads.size(); ++h) {
    const linalg::Matrix& keys = problem.keys[h];
    const linalg::Matrix& queries = problem.queries[h];
    for (int64_t t = 0; t < keys.rows; ++t) {
      std::vector<double> error(kHead);
      for (int64_t d = 0; d < kHead; ++d) {
        const int64_t row = problem.heads[h].begin + d;
        error[d] = keys(t, row);
        for (int64_t r = 0; r < rank; ++r) {
          double coordinate = 0.0;
          for (int64_t c = 0; c < keys.cols; ++c) coordinate += basis.reduce(r, c) * keys(t, c);
          error[d] -= basis.rebuild(row, r) * coordinate;
        }
      }
      for (int64_t i = 0; i < queries.rows; ++i) {
        double product = 0.0;
        for (int64_t d = 0; d < kHead; ++d) product += queries(i, d) * error[d];
        loss += product * product;
      }
    }
  }
  return loss;
}

KeyBasis Cut(const KeyBasis& basis, int64_t rank) {
  KeyBasis cut;
  cut.reduce = linalg::Matrix(rank, basis.reduce.cols);
  cut.rebuild = linalg::Matrix(basis.rebuild.rows, rank);
  for (int64_t r = 0; r < rank; ++r) {
    for (int64_t d = 0; d < basis.reduce.cols; ++d) {
      cut.reduce(r, d) = basis.reduce(r, d);
      cut.rebuild(d, r) = basis.rebuild(d, r);
    }
  }
  return cut;
}

double Loss(const Problem& problem, const KeyBasis& basis) {
  return JointLoss(problem.heads, basis.rebuild, basis.reduce);
}

class JointBasisTest : public ::testing::Test {
 protected:
  std::unique_ptr<linalg::Svd> svd_ = linalg::Svd::Create(linalg::SvdBackend::kLapack);
};

TEST_F(JointBasisTest, LossIsThatOfTheSamples) {
  const Problem problem = RandomProblem(3, 1);
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  for (const int64_t rank : {0, 1, 7, 15}) {
    const double expected = SampledLoss(problem, start, rank);
    const double scale = SampledLoss(problem, start, 0);
    EXPECT_NEAR(Loss(problem, Cut(start, rank)), expected, 1e-10 * scale) << rank;
  }
}

// One head: the rest of the spectrum is lost, and no other basis of the rank loses less.
TEST_F(JointBasisTest, OneHeadHasAClosedForm) {
  const Problem problem = RandomProblem(1, 2);
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  for (int64_t rank = 1; rank < kHead; ++rank) {
    double rest = 0.0;
    for (int64_t i = rank; i < kHead; ++i) rest += start.spectrum[i];
    const double loss = Loss(problem, Cut(start, rank));
    EXPECT_NEAR(loss, rest, 1e-9 * Loss(problem, Cut(start, 0)));
    EXPECT_NEAR(Loss(problem, RefineBasis(problem.heads, start, rank, *svd_)), loss, 1e-6 * loss);
  }
}

TEST_F(JointBasisTest, FullRankLosesNothing) {
  const Problem problem = RandomProblem(3, 3);
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  EXPECT_LE(Loss(problem, start), 1e-12 * Loss(problem, Cut(start, 0)));
}

TEST_F(JointBasisTest, RefiningLosesLess) {
  for (uint64_t seed = 4; seed < 10; ++seed) {
    const Problem problem = RandomProblem(2 + static_cast<int64_t>(seed % 2), seed);
    const KeyBasis start = SummedBasis(problem.heads, *svd_);
    for (const int64_t rank : {1, 3, 6, 9}) {
      const double before = Loss(problem, Cut(start, rank));
      const KeyBasis refined = RefineBasis(problem.heads, start, rank, *svd_);
      ASSERT_EQ(refined.reduce.rows, rank);
      ASSERT_EQ(refined.rebuild.cols, rank);
      EXPECT_LT(Loss(problem, refined), before) << "seed " << seed << ", rank " << rank;
      EXPECT_EQ(refined.spectrum, start.spectrum);
    }
  }
}

// Where the heads weigh tokens alike the closed form is the best one.
TEST_F(JointBasisTest, AlikeGramsLeaveNothingToRefine) {
  Problem problem = RandomProblem(3, 10);
  for (HeadErrorWeights& head : problem.heads) head.gram = problem.heads[0].gram;
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  const double before = Loss(problem, Cut(start, 6));
  EXPECT_NEAR(Loss(problem, RefineBasis(problem.heads, start, 6, *svd_)), before, 1e-6 * before);
}

TEST_F(JointBasisTest, CoordinatesAreOrthonormalUncorrelatedAndSorted) {
  const Problem problem = RandomProblem(3, 11);
  constexpr int64_t kRank = 6;
  const KeyBasis basis =
      RefineBasis(problem.heads, SummedBasis(problem.heads, *svd_), kRank, *svd_);
  linalg::Matrix metric(15, 15);
  linalg::Matrix gram(15, 15);
  double all = 0.0;
  for (const HeadErrorWeights& head : problem.heads) {
    double trace = 0.0;
    for (int64_t r = 0; r < kHead; ++r) {
      trace += head.metric(r, r);
      for (int64_t c = 0; c < kHead; ++c) {
        metric(head.begin + r, head.begin + c) = head.metric(r, c);
      }
    }
    for (size_t i = 0; i < gram.data.size(); ++i) gram.data[i] += trace * head.gram.data[i];
    all += trace;
  }
  const auto between = [](const linalg::Matrix& rows, const linalg::Matrix& middle) {
    return linalg::MultiplyTransposed(linalg::Multiply(rows.view(), middle.view()).view(),
                                      rows.view());
  };
  const linalg::Matrix inner = between(linalg::Transpose(basis.rebuild.view()), metric);  // [r, r]
  const linalg::Matrix seen = between(basis.reduce, gram);                                // [r, r]
  for (int64_t r = 0; r < kRank; ++r) {
    if (r > 0) {
      EXPECT_LE(seen(r, r), seen(r - 1, r - 1));
    }
    for (int64_t c = 0; c < kRank; ++c) {
      EXPECT_NEAR(inner(r, c), r == c ? 1.0 : 0.0, 1e-8);
      if (r != c) {
        EXPECT_NEAR(seen(r, c), 0.0, 1e-9 * all * seen(0, 0) / all);
      }
    }
  }
}

// A head whose samples are all alike but for rounding must not be taken at its word about the rest.
TEST_F(JointBasisTest, RoundingOfAGramIsNoKnowledge) {
  Problem problem = RandomProblem(3, 13);
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  Rng rng(13);
  linalg::Matrix& gram = problem.heads[1].gram;
  const linalg::Matrix& keys = problem.keys[1];
  for (int64_t r = 0; r < gram.rows; ++r) {
    for (int64_t c = 0; c <= r; ++c) {
      const double noise = 1e-7 * gram(0, 0) * rng.NextNormal();
      gram(r, c) = gram(c, r) = kTokens * keys(0, r) * keys(0, c) + noise;
    }
  }
  const KeyBasis refined = RefineBasis(problem.heads, start, 6, *svd_);
  // The keys that the head forgot come out no worse than if there were no latent at all.
  EXPECT_LT(SampledLoss(problem, refined, 6), SampledLoss(problem, refined, 0));
}

// A head that nobody asks, and directions that no key takes.
TEST_F(JointBasisTest, EmptyHeadsAndDirections) {
  Problem problem = RandomProblem(2, 12);
  problem.heads[1].metric = linalg::Matrix(kHead, kHead);
  for (HeadErrorWeights& head : problem.heads) {
    for (int64_t i = 0; i < 10; ++i) head.gram(0, i) = head.gram(i, 0) = 0.0;
  }
  const KeyBasis start = SummedBasis(problem.heads, *svd_);
  const KeyBasis refined = RefineBasis(problem.heads, start, 4, *svd_);
  for (const double value : refined.rebuild.data) EXPECT_TRUE(std::isfinite(value));
  for (const double value : refined.reduce.data) EXPECT_TRUE(std::isfinite(value));
  EXPECT_LE(Loss(problem, refined), 1.000001 * Loss(problem, Cut(start, 4)));
  problem.heads[0].metric = problem.heads[1].metric;
  EXPECT_ANY_THROW((void)SummedBasis(problem.heads, *svd_));
}

// Heads whose keys are zero, one of them or all.
TEST(JointBasis, HeadsOfZerosHaveABasis) {
  const auto svd = linalg::Svd::Create(linalg::SvdBackend::kLapack);
  for (const bool all : {false, true}) {
    Problem problem = RandomProblem(3, 17);
    for (size_t h = 0; h < problem.heads.size(); ++h) {
      if (all || h == 1) std::ranges::fill(problem.heads[h].gram.data, 0.0);
    }
    const KeyBasis start = SummedBasis(problem.heads, *svd);
    const KeyBasis basis = RefineBasis(problem.heads, start, 6, *svd);
    for (const auto* values : {&basis.reduce.data, &basis.rebuild.data}) {
      for (const double value : *values) ASSERT_TRUE(std::isfinite(value)) << all;
    }
  }
}

}  // namespace
}  // namespace kvc::factorize
