#include <Eigen/Eigenvalues>
#include <Eigen/SVD>

#include "core/base/error.h"
#include "linalg/svd.h"

namespace kvc::linalg::detail {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ColMajor = Eigen::MatrixXd;
using Strided = Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>;

Matrix ToMatrix(const ColMajor& a) {
  Matrix result(a.rows(), a.cols());
  Eigen::Map<RowMajor>(result.data.data(), a.rows(), a.cols()) = a;
  return result;
}

class EigenSvd : public Svd {
 public:
  [[nodiscard]] SvdBackend backend() const override { return SvdBackend::kEigen; }

 private:
  [[nodiscard]] SvdResult DoDecompose(ConstMatrixD a) const override {
    const ColMajor copy = Strided(a.data, a.rows, a.cols, Eigen::OuterStride<>(a.stride));
    // BDCSVD of Eigen 3.4 loses accuracy on some graded matrices; Jacobi does not, and the sizes
    // here are a head's or a layer's.
    const Eigen::JacobiSVD<ColMajor> svd(copy, Eigen::ComputeThinU | Eigen::ComputeThinV);
    KVC_CHECK(svd.info() == Eigen::Success, kNumeric, "Eigen SVD of [{}, {}]: did not converge",
              a.rows, a.cols);
    SvdResult result;
    result.u = ToMatrix(svd.matrixU());
    result.s.assign(svd.singularValues().data(),
                    svd.singularValues().data() + svd.singularValues().size());
    result.vt = ToMatrix(svd.matrixV().transpose());
    return result;
  }

  [[nodiscard]] EigenResult DoDecomposeSymmetric(ConstMatrixD a) const override {
    const ColMajor copy = Strided(a.data, a.rows, a.cols, Eigen::OuterStride<>(a.stride));
    const Eigen::SelfAdjointEigenSolver<ColMajor> solver(copy);
    KVC_CHECK(solver.info() == Eigen::Success, kNumeric,
              "Eigen eigenvectors of [{}, {}]: did not converge", a.rows, a.cols);
    // Eigen sorts ascending.
    EigenResult result;
    const Eigen::VectorXd values = solver.eigenvalues().reverse();
    result.values.assign(values.data(), values.data() + values.size());
    result.vectors = ToMatrix(solver.eigenvectors().rowwise().reverse());
    return result;
  }
};

}  // namespace

std::unique_ptr<Svd> CreateEigenSvd() { return std::make_unique<EigenSvd>(); }

}  // namespace kvc::linalg::detail
