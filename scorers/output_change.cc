#include "scorers/output_change.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/row_product.h"
#include "scorers/checks.h"

namespace kvc::scorers {
namespace {

// A token with more of a query's attention than this is left out of the expanded square, which
// would lose its digits. There is at most one such token for each query.
constexpr float kDominantAttention = 0.5F;
// Attention below this counts as none; its inverse is still a float.
constexpr double kNoAttention = 1e-30;

}  // namespace

OutputChange::OutputChange(int64_t most_queries,
                           ConstMatrixF values,
                           kernels::InputRounding rounding)
    : values_(values),
      rounding_(rounding),
      transposed_(values.cols, values.rows),
      projected_(values.rows, values.cols),
      attention_(most_queries, values.rows),
      cross_(most_queries, values.rows),
      output_(most_queries, values.cols),
      output_m_(most_queries, values.cols),
      dominant_(most_queries, values.cols),
      dominant_m_(most_queries, values.cols),
      norm_(static_cast<size_t>(values.rows)) {
  for (int64_t j = 0; j < values.rows; ++j) {
    for (int64_t d = 0; d < values.cols; ++d) transposed_.view(d, j) = values(j, d);
  }
}

void OutputChange::SetGram(ConstMatrixF gram) {
  gram_ = gram;
  kernels::MultiplyRows(values_, gram, rounding_, projected_.view);
  for (int64_t j = 0; j < values_.rows; ++j) {
    norm_[j] = Dot(projected_.view.row(j), values_.row(j), values_.cols);
  }
}

// Sets the attention of the dominant token in a row to zero, and returns what it was.
OutputChange::Dominant OutputChange::TakeDominant(int64_t i) const {
  float* row = attention_.view.row(i);
  float* end = row + attention_.view.cols;
  int found = 0;  // a count vectorises, a search does not, and mostly there is none
  for (const float* a = row; a < end; ++a) found += static_cast<int>(*a > kDominantAttention);
  if (found == 0) return {};
  float* largest = std::max_element(row, end);
  Dominant dominant = {largest - row, *largest};
  *largest = 0.0F;
  dominant.rest = std::accumulate(row, end, 0.0);
  return dominant;
}

// Adds the dominant token to the row of output_, which holds the sum over the others, and fills the
// row of dominant_.
void OutputChange::Complete(int64_t i, Dominant& dominant) const {
  float* difference = dominant_.view.row(i);  // [D]
  if (dominant.token < 0) {
    std::fill_n(difference, values_.cols, 0.0F);
    return;
  }
  const float inverse =
      dominant.rest > kNoAttention ? static_cast<float>(1.0 / dominant.rest) : 0.0F;
  const float* value = values_.row(dominant.token);  // [D]
  float* output = output_.view.row(i);
  for (int64_t d = 0; d < values_.cols; ++d) {
    difference[d] = value[d] - inverse * output[d];
    output[d] += dominant.attention * value[d];
  }
}

void OutputChange::Find(int64_t count) {
  dominants_.clear();
  for (int64_t i = 0; i < count; ++i) dominants_.push_back(TakeDominant(i));
  const MatrixF output = Rows(output_);
  const MatrixF output_m = Rows(output_m_);
  const MatrixF difference = Rows(dominant_);
  const MatrixF difference_m = Rows(dominant_m_);
  kernels::MultiplyRows(attention(count), transposed_.view, rounding_, output);
  for (int64_t i = 0; i < count; ++i) Complete(i, dominants_[i]);
  kernels::RoundRows(rounding_, output);
  kernels::RoundRows(rounding_, difference);
  kernels::MultiplyRows(output, gram_, rounding_, output_m);
  kernels::MultiplyRows(difference, gram_, rounding_, difference_m);
  own_.resize(static_cast<size_t>(count));
  const int64_t width = values_.cols;
  for (int64_t i = 0; i < count; ++i) {
    own_[i] = -Dot(output.row(i), output_m.row(i), width);
    const float square = Dot(difference_m.row(i), difference.row(i), width);
    dominants_[i].square = square < 0.0F ? 0.0F : square;  // a NaN stays
  }
  // The product below takes r, the rounded o M. With 2 o r - o M o in place of o M o what rounding
  // changes in the square shrinks with v - o, as the square does.
  kernels::RoundRows(rounding_, output_m);
  for (int64_t i = 0; i < count; ++i) {
    own_[i] += 2.0F * Dot(output.row(i), output_m.row(i), width);
  }
  kernels::MultiplyRows(output_m, values_, rounding_, Rows(cross_));
}

void OutputChange::Reduce(kernels::LossReduction reduction, std::span<float> errors) const {
  kernels::ReduceDropped({attention(std::ssize(dominants_)), Rows(cross_), norm_, own_}, reduction,
                         errors);
  for (const Dominant& dominant : dominants_) {
    if (dominant.token < 0) continue;
    const float error = dominant.attention * dominant.attention * dominant.square;
    float& sum = errors[dominant.token];
    const bool keeps = std::isnan(sum) || sum > error;
    sum = reduction == kernels::LossReduction::kSum ? sum + error : (keeps ? sum : error);
  }
}

ConstMatrixF OutputChange::Squares() {
  const MatrixF squares = Rows(cross_);
  for (int64_t i = 0; i < squares.rows; ++i) {
    float* row = squares.row(i);
    for (int64_t j = 0; j < squares.cols; ++j) {
      const float square = norm_[j] - 2.0F * row[j] + own_[i];
      row[j] = square < 0.0F ? 0.0F : square;  // a NaN stays
    }
  }
  return squares;
}

}  // namespace kvc::scorers
