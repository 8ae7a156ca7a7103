#include "scorers/output_change.h"

#include <algorithm>
#include <numeric>

#include "linalg/products.h"
#include "scorers/checks.h"
#include "scorers/output_form.h"

namespace kvc::scorers {
namespace {

// Attention below this counts as none; its inverse is still a float.
constexpr double kNoAttention = 1e-30;

}  // namespace

OutputChange::OutputChange(int64_t most_queries, ConstMatrixF values)
    : values_(values), norm_(values.rows) {
  const int64_t num_tokens = values.rows;
  const int64_t width = values.cols;
  storage_.resize(2 * most_queries * num_tokens + num_tokens * width + 4 * most_queries * width);
  float* next = storage_.data();
  const auto take = [&next](int64_t rows, int64_t cols) {
    const MatrixF matrix(next, rows, cols);
    next += rows * cols;
    return matrix;
  };
  attention_ = take(most_queries, num_tokens);
  cross_ = take(most_queries, num_tokens);
  projected_ = take(num_tokens, width);
  output_ = take(most_queries, width);
  output_m_ = take(most_queries, width);
  dominant_ = take(most_queries, width);
  dominant_m_ = take(most_queries, width);
}

void OutputChange::SetGram(ConstMatrixF gram) {
  gram_ = gram;
  ProjectValues(values_, gram, projected_, norm_);
}

// Sets the attention of the dominant token in a row to zero, and returns what it was.
OutputChange::Dominant OutputChange::TakeDominant(int64_t i) const {
  float* row = attention_.row(i);
  float* end = row + attention_.cols;
  int found = 0;  // a count vectorises, a search does not, and mostly there is none
  for (const float* a = row; a < end; ++a) found += static_cast<int>(*a > kDominantAttention);
  if (found == 0) return {};
  float* largest = std::max_element(row, end);
  const Dominant dominant = {largest - row, *largest};
  *largest = 0.0F;
  return dominant;
}

// Adds the dominant token to the row of output_, which holds the sum over the others, and fills the
// row of dominant_.
void OutputChange::Complete(int64_t i, const Dominant& dominant) const {
  float* difference = dominant_.row(i);  // [D]
  if (dominant.token < 0) {
    std::fill_n(difference, values_.cols, 0.0F);
    return;
  }
  const float* row = attention_.row(i);
  const double rest = std::accumulate(row, row + attention_.cols, 0.0);
  const float inverse = rest > kNoAttention ? static_cast<float>(1.0 / rest) : 0.0F;
  const float* value = values_.row(dominant.token);  // [D]
  float* output = output_.row(i);
  for (int64_t d = 0; d < values_.cols; ++d) {
    difference[d] = value[d] - inverse * output[d];
    output[d] += dominant.attention * value[d];
  }
}

// Turns the row of cross_ from o M v^T into e.
void OutputChange::FinishRow(int64_t i, const Dominant& dominant) const {
  const int64_t width = values_.cols;
  const float* attention = attention_.row(i);
  float* row = cross_.row(i);
  const float own = Dot(output_.row(i), output_m_.row(i), width);  // o M o^T
  for (int64_t j = 0; j < cross_.cols; ++j) {
    const float share = attention[j] / (1.0F - attention[j]);
    row[j] = share * share * ExpandedSquare(norm_[j], row[j], own);
  }
  if (dominant.token < 0) return;
  const float square = Dot(dominant_.row(i), dominant_m_.row(i), width);
  row[dominant.token] = dominant.attention * dominant.attention * (square < 0.0F ? 0.0F : square);
}

ConstMatrixF OutputChange::Errors(int64_t count) {
  std::vector<Dominant> dominant;
  for (int64_t i = 0; i < count; ++i) dominant.push_back(TakeDominant(i));
  const MatrixF output = output_.RowRange(0, count);
  const MatrixF output_m = output_m_.RowRange(0, count);
  const MatrixF cross = cross_.RowRange(0, count);
  linalg::GemmNN(attention(count), values_, false, output);
  for (int64_t i = 0; i < count; ++i) Complete(i, dominant[i]);
  linalg::GemmNN(output, gram_, false, output_m);
  linalg::GemmNN(dominant_.RowRange(0, count), gram_, false, dominant_m_.RowRange(0, count));
  linalg::GemmNT(1.0F, output, projected_, false, cross);
  for (int64_t i = 0; i < count; ++i) FinishRow(i, dominant[i]);
  return cross;
}

}  // namespace kvc::scorers
