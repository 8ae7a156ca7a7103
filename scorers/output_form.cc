#include "scorers/output_form.h"

#include "linalg/products.h"
#include "scorers/checks.h"

namespace kvc::scorers {

void ProjectValues(ConstMatrixF values,
                   ConstMatrixF gram,
                   MatrixF projected,
                   std::span<float> norms) {
  linalg::GemmNN(values, gram, false, projected);
  for (int64_t j = 0; j < values.rows; ++j) {
    norms[j] = Dot(projected.row(j), values.row(j), values.cols);
  }
}

double BilinearForm(const float* x, ConstMatrixF gram, const float* y) {
  double sum = 0.0;
  for (int64_t d = 0; d < gram.rows; ++d) {
    sum += static_cast<double>(x[d]) * Dot(gram.row(d), y, gram.cols);
  }
  return sum;
}

}  // namespace kvc::scorers
