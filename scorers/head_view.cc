#include "scorers/head_view.h"

#include <algorithm>
#include <span>

#include "linalg/products.h"
#include "scorers/output_form.h"
#include "scorers/window_attention.h"

namespace kvc::scorers {
namespace {

DominantToken FindDominant(const HeadInput& head, std::span<const float> attention) {
  DominantToken dominant;
  const auto largest = std::ranges::max_element(attention);
  if (!(*largest > kDominantAttention)) return dominant;
  dominant.token = largest - attention.begin();
  const int64_t width = head.values.cols;
  std::vector<double> others(static_cast<size_t>(width), 0.0);
  double rest = 0.0;
  for (int64_t j = 0; j < std::ssize(attention); ++j) {
    if (j == dominant.token || attention[j] == 0.0F) continue;
    rest += static_cast<double>(attention[j]);
    const float* value = head.values.row(j);
    for (int64_t d = 0; d < width; ++d) others[d] += static_cast<double>(attention[j]) * value[d];
  }
  dominant.rest = rest;
  const float* value = head.values.row(dominant.token);
  for (int64_t d = 0; d < width; ++d) {
    // A token that is alone leaves an output of zero.
    const double other = rest > 0.0 ? others[d] / rest : 0.0;
    dominant.change.push_back(static_cast<float>(value[d] - other));
  }
  return dominant;
}

}  // namespace

HeadView ViewFromHead(const HeadInput& head, size_t h, int64_t window) {
  const int64_t num_tokens = head.keys.rows;
  const int64_t width = head.values.cols;
  HeadView view = {FloatMatrix(window, num_tokens),
                   FloatMatrix(window, width),
                   FloatMatrix(window, num_tokens),
                   {}};
  const ConstMatrixF queries = head.queries[h];
  WindowAttention(queries.RowRange(queries.rows - window, window), head, view.attention.view);
  linalg::GemmNN(view.attention.view, head.values, false, view.output.view);
  const FloatMatrix projected(num_tokens, width);             // v M
  std::vector<float> norms(static_cast<size_t>(num_tokens));  // v M v^T
  ProjectValues(head.values, head.output_grams[h], projected.view, norms);
  linalg::GemmNT(1.0F, view.output.view, projected.view, false, view.squares.view);  // o M v^T
  for (int64_t i = 0; i < window; ++i) {
    const float* output = view.output.view.row(i);
    const auto own =
        static_cast<float>(BilinearForm(output, head.output_grams[h], output));  // o M o^T
    float* row = view.squares.view.row(i);
    for (int64_t j = 0; j < num_tokens; ++j) {
      row[j] = ExpandedSquare(norms[j], row[j], own);
    }
    view.dominants.push_back(
        FindDominant(head, {view.attention.view.row(i), static_cast<size_t>(num_tokens)}));
  }
  return view;
}

}  // namespace kvc::scorers
