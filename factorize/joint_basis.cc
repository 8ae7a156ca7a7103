#include "factorize/joint_basis.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "core/base/error.h"

namespace kvc::factorize {
namespace {

constexpr double kSmallestEigenvalue = 1e-6;  // of the metrics' largest; see ScaledBasis
constexpr double kSmallestPivot = 1e-6;       // of the largest eigenvalue of what is inverted
constexpr double kConverged = 1e-10;          // of the right side's square norm
constexpr int kRounds = 4;
constexpr int kSteps = 12;  // of conjugate gradients in each

double Trace(const linalg::Matrix& a) {
  double sum = 0.0;
  for (int64_t i = 0; i < a.rows; ++i) sum += a(i, i);
  return sum;
}

double Dot(const linalg::Matrix& a, const linalg::Matrix& b) {
  double sum = 0.0;
  for (size_t i = 0; i < a.data.size(); ++i) sum += a.data[i] * b.data[i];
  return sum;
}

void AddScaled(const linalg::Matrix& a, double factor, linalg::Matrix& sum) {
  for (size_t i = 0; i < a.data.size(); ++i) sum.data[i] += factor * a.data[i];
}

// v diag(f(values)) v^T
linalg::Matrix Function(const linalg::EigenResult& eigen, const std::function<double(double)>& f) {
  std::vector<double> values;
  for (const double value : eigen.values) values.push_back(f(value));
  return Recompose(eigen, values);
}

// Inverse of a symmetric matrix; eigenvalues below kSmallestPivot count as that. Of a matrix of
// zeros it is zero.
linalg::Matrix Inverse(const linalg::Matrix& a, const linalg::Svd& svd) {
  const linalg::EigenResult eigen = svd.DecomposeSymmetric(a.view());
  const double least = kSmallestPivot * eigen.values[0];
  return Function(eigen, [&](double value) {
    const double pivot = std::max(value, least);
    return pivot > 0.0 ? 1.0 / pivot : 0.0;
  });
}

ConstMatrixD RowsOf(const HeadErrorWeights& head, const linalg::Matrix& rebuild) {
  return rebuild.view().RowRange(head.begin, head.metric.rows);
}

void SetBlock(const linalg::Matrix& block, int64_t row, int64_t col, linalg::Matrix& target) {
  for (int64_t r = 0; r < block.rows; ++r) {
    for (int64_t c = 0; c < block.cols; ++c) target(row + r, col + c) = block(r, c);
  }
}

// Weighted mean of the heads' grams [m, m].
linalg::Matrix SummedGram(std::span<const HeadErrorWeights> heads) {
  linalg::Matrix gram(heads[0].gram.rows, heads[0].gram.cols);
  double all = 0.0;
  for (const HeadErrorWeights& head : heads) all += Trace(head.metric);
  KVC_CHECK(all > 0.0, kNumeric, "queries: expected one that is not zero, got none");
  for (const HeadErrorWeights& head : heads) AddScaled(head.gram, Trace(head.metric) / all, gram);
  return gram;
}

// B_h^T M_h [r, D].
linalg::Matrix WeighedRows(const HeadErrorWeights& head, const linalg::Matrix& rebuild) {
  return linalg::Multiply(linalg::Transpose(RowsOf(head, rebuild)).view(), head.metric.view());
}

// Solves for the best B [m, r] for A [r, m], as a step from B. If a head's keys hardly move (grams
// are sums of float products), its rows stay unchanged.
void SolveRebuild(std::span<const HeadErrorWeights> heads,
                  const linalg::Matrix& reduce,
                  const linalg::Svd& svd,
                  linalg::Matrix& rebuild) {
  linalg::Matrix step(rebuild.rows, rebuild.cols);
  for (const HeadErrorWeights& head : heads) {
    const linalg::Matrix crossed =
        linalg::MultiplyTransposed(head.gram.view(), reduce.view());               // C A^T [m, r]
    const linalg::Matrix moved = linalg::Multiply(reduce.view(), crossed.view());  // A C A^T [r, r]
    linalg::Matrix left = linalg::Multiply(RowsOf(head, rebuild), moved.view());   // [D, r]
    for (int64_t d = 0; d < left.rows; ++d) {
      for (int64_t r = 0; r < left.cols; ++r) {
        left(d, r) = crossed(head.begin + d, r) - left(d, r);
      }
    }
    SetBlock(linalg::Multiply(left.view(), Inverse(moved, svd).view()), head.begin, 0, step);
  }
  AddScaled(step, 1.0, rebuild);
}

// The normal equations of A for given B, and an approximate inverse that treats A's rows and
// columns separately.
struct ReduceSystem {
  std::span<const HeadErrorWeights> heads;
  std::vector<linalg::Matrix> left;  // [heads] of [r, r]: B_h^T M_h B_h
  linalg::Matrix right_side;         // [r, m]
  linalg::Matrix row_inverse;        // [r, r]
  linalg::Matrix column_inverse;     // [m, m]

  ReduceSystem(std::span<const HeadErrorWeights> errors,
               const linalg::Matrix& rebuild,
               const linalg::Svd& svd)
      : heads(errors), right_side(rebuild.cols, rebuild.rows) {
    linalg::Matrix rows(rebuild.cols, rebuild.cols);
    linalg::Matrix columns(rebuild.rows, rebuild.rows);
    for (const HeadErrorWeights& head : heads) {
      const int64_t width = head.metric.rows;
      const linalg::Matrix scaled = WeighedRows(head, rebuild);  // [r, D]
      left.push_back(linalg::Multiply(scaled.view(), RowsOf(head, rebuild)));
      const linalg::Matrix part =
          linalg::Multiply(scaled.view(), head.gram.view().RowRange(head.begin, width));
      AddScaled(part, 1.0, right_side);
      AddScaled(left.back(), Trace(head.gram), rows);
      AddScaled(head.gram, Trace(left.back()), columns);
    }
    row_inverse = Inverse(rows, svd);
    column_inverse = Inverse(columns, svd);
  }
  [[nodiscard]] linalg::Matrix Apply(const linalg::Matrix& x) const {
    linalg::Matrix sum(x.rows, x.cols);
    for (size_t h = 0; h < heads.size(); ++h) {
      const linalg::Matrix turned = linalg::Multiply(left[h].view(), x.view());
      AddScaled(linalg::Multiply(turned.view(), heads[h].gram.view()), 1.0, sum);
    }
    return sum;
  }
  [[nodiscard]] linalg::Matrix Precondition(const linalg::Matrix& x) const {
    return linalg::Multiply(linalg::Multiply(row_inverse.view(), x.view()).view(),
                            column_inverse.view());
  }
};

// Runs conjugate gradients from `reduce` on.
void SolveReduce(const ReduceSystem& system, linalg::Matrix& reduce) {
  linalg::Matrix residual = system.right_side;
  AddScaled(system.Apply(reduce), -1.0, residual);
  linalg::Matrix direction = system.Precondition(residual);
  double energy = Dot(residual, direction);
  const double enough = kConverged * Dot(system.right_side, system.Precondition(system.right_side));
  for (int step = 0; step < kSteps && energy > enough; ++step) {
    const linalg::Matrix image = system.Apply(direction);
    const double length = energy / Dot(direction, image);
    AddScaled(direction, length, reduce);
    AddScaled(image, -length, residual);
    linalg::Matrix next = system.Precondition(residual);
    const double next_energy = Dot(residual, next);
    AddScaled(direction, next_energy / energy, next);
    direction = std::move(next);
    energy = next_energy;
  }
}

// Returns the same product B A in coordinates that are uncorrelated in `gram` and orthonormal in
// the metrics: with B^T M B = Q^2 and Q A gram A^T Q = V diag V^T, A becomes V^T Q A and B becomes
// B Q^-1 V.
KeyBasis Canonical(std::span<const HeadErrorWeights> heads,
                   const linalg::Matrix& rebuild,
                   const linalg::Matrix& reduce,
                   const linalg::Svd& svd) {
  linalg::Matrix inner(rebuild.cols, rebuild.cols);
  for (const HeadErrorWeights& head : heads) {
    AddScaled(linalg::Multiply(WeighedRows(head, rebuild).view(), RowsOf(head, rebuild)), 1.0,
              inner);
  }
  const linalg::EigenResult eigen = svd.DecomposeSymmetric(inner.view());
  const double least = kSmallestPivot * eigen.values[0];
  const linalg::Matrix root =
      Function(eigen, [&](double x) { return std::sqrt(std::max(x, least)); });
  const linalg::Matrix inverse =
      Function(eigen, [&](double x) { return 1.0 / std::sqrt(std::max(x, least)); });
  const linalg::Matrix coordinates = linalg::Multiply(root.view(), reduce.view());  // [r, m]
  const linalg::Matrix gram = SummedGram(heads);
  const linalg::Matrix weighed = linalg::Multiply(coordinates.view(), gram.view());
  const linalg::Matrix vectors =
      svd.DecomposeSymmetric(linalg::MultiplyTransposed(weighed.view(), coordinates.view()).view())
          .vectors;
  KeyBasis basis;
  basis.reduce = linalg::Multiply(linalg::Transpose(vectors.view()).view(), coordinates.view());
  basis.rebuild =
      linalg::Multiply(linalg::Multiply(rebuild.view(), inverse.view()).view(), vectors.view());
  return basis;
}

}  // namespace

double JointLoss(std::span<const HeadErrorWeights> heads,
                 const linalg::Matrix& rebuild,
                 const linalg::Matrix& reduce) {
  double loss = 0.0;
  for (const HeadErrorWeights& head : heads) {
    linalg::Matrix error = linalg::Multiply(RowsOf(head, rebuild), reduce.view());  // -X_h [D, m]
    for (int64_t d = 0; d < error.rows; ++d) error(d, head.begin + d) -= 1.0;
    const linalg::Matrix weighed = linalg::Multiply(head.metric.view(), error.view());
    loss += Dot(linalg::Multiply(weighed.view(), head.gram.view()), error);
  }
  return loss;
}

KeyBasis SummedBasis(std::span<const HeadErrorWeights> heads, const linalg::Svd& svd) {
  std::vector<linalg::EigenResult> eigen;
  double largest = 0.0;
  for (const HeadErrorWeights& head : heads) {
    eigen.push_back(svd.DecomposeSymmetric(head.metric.view()));
    largest = std::max(largest, eigen.back().values[0]);
  }
  const double least = kSmallestEigenvalue * largest;
  const linalg::Matrix gram = SummedGram(heads);
  linalg::Matrix root(gram.rows, gram.rows);
  linalg::Matrix inverse(gram.rows, gram.rows);
  for (size_t h = 0; h < heads.size(); ++h) {
    const int64_t at = heads[h].begin;
    const auto set = [&](linalg::Matrix& target, const std::function<double(double)>& f) {
      SetBlock(Function(eigen[h], [&](double x) { return f(std::max(x, least)); }), at, at, target);
    };
    set(root, [](double x) { return std::sqrt(x); });
    set(inverse, [](double x) { return 1.0 / std::sqrt(x); });
  }
  const linalg::Matrix weighed = linalg::Multiply(root.view(), gram.view());
  KeyBasis basis =
      BasisOf(svd.DecomposeSymmetric(linalg::Multiply(weighed.view(), root.view()).view()));
  basis.reduce = linalg::Multiply(basis.reduce.view(), root.view());
  basis.rebuild = linalg::Multiply(inverse.view(), basis.rebuild.view());
  return basis;
}

KeyBasis RefineBasis(std::span<const HeadErrorWeights> heads,
                     const KeyBasis& start,
                     int64_t rank,
                     const linalg::Svd& svd) {
  linalg::Matrix reduce(rank, start.reduce.cols);
  std::copy_n(start.reduce.data.begin(), reduce.data.size(), reduce.data.begin());
  linalg::Matrix rebuild(start.rebuild.rows, rank);
  for (int64_t d = 0; d < rebuild.rows; ++d) {
    for (int64_t r = 0; r < rank; ++r) rebuild(d, r) = start.rebuild(d, r);
  }
  SolveRebuild(heads, reduce, svd, rebuild);
  for (int round = 0; round < kRounds; ++round) {
    SolveReduce(ReduceSystem(heads, rebuild, svd), reduce);
    SolveRebuild(heads, reduce, svd, rebuild);
  }
  KeyBasis basis = Canonical(heads, rebuild, reduce, svd);
  basis.spectrum = start.spectrum;
  return basis;
}

}  // namespace kvc::factorize
