// The sums of a head in double, and how far float rounding may move them.

#include <algorithm>
#include <cmath>

#include "tests/cuda/score_case.h"

namespace kvc::cuda {
namespace {

constexpr double kUnit = 0x1p-24;

}  // namespace

// With Q = |v| |M| |v| + 2 |o| |M| |v| + |o| |M| |o| of magnitudes, and r the rounding of
// attention, the square is off by (2 D + 8) u Q for its own sums and by 2 r Q for o, and
// (a / (1 - a))^2, a being 1/2 or less, by 4 r.
void ScoreCase::AddErrors(size_t head, const View& view, Bounds& bounds) const {
  const int64_t width = shape_.value_width;
  const double r = view.rounding;
  const double forms = (2.0 * static_cast<double>(width) + 8.0) * kUnit;
  const double own = FormOfSizes(view.o_size, *view.gram, view.o_size);
  for (int64_t j = 0; j < std::ssize(view.a); ++j) {
    if (view.a[j] == 0.0) continue;
    const float* row = values[head].host().row(j);
    const std::vector<double> value(row, row + width);
    const bool alone = j == view.dominant && view.a[j] > 0.5;
    std::vector<double> moved = value;
    std::vector<double> size = value;
    for (int64_t d = 0; d < width; ++d) {
      moved[d] -= alone ? view.others[d] : view.o[d];
      size[d] = std::abs(size[d]) + std::abs(view.others[d]);
    }
    const double square = Form(moved, *view.gram, moved);
    const double share = alone ? view.a[j] : view.a[j] / (1.0 - view.a[j]);
    const double terms = alone ? FormOfSizes(size, *view.gram, size)
                               : FormOfSizes(value, *view.gram, value) +
                                     2.0 * FormOfSizes(view.o_size, *view.gram, value) + own;
    const double e = share * share * square;
    const double bound = share * share * (4.0 * r * square + terms * (forms + 2.0 * r));
    if (view.window) {
      bounds.attention[j] += view.a[j];
      bounds.attention_bound[j] += view.a[j] * r;
      bounds.error_sums[j] += e;
      bounds.error_sums_bound[j] += bound;
      bounds.error_maxima[j] = std::max(bounds.error_maxima[j], e);
      bounds.error_maxima_bound[j] = std::max(bounds.error_maxima_bound[j], bound);
    } else {
      bounds.prompt_errors[j] += e;
      bounds.prompt_errors_bound[j] += bound;
    }
  }
}

ScoreCase::Bounds ScoreCase::BoundsOf(size_t head) const {
  const auto tokens = static_cast<size_t>(shape_.tokens[head]);
  Bounds bounds;
  for (auto* array : {&bounds.attention, &bounds.error_sums, &bounds.error_maxima,
                      &bounds.prompt_errors, &bounds.attention_bound, &bounds.error_sums_bound,
                      &bounds.error_maxima_bound, &bounds.prompt_errors_bound}) {
    array->assign(tokens, 0.0);
  }
  const std::vector<View> views = Views(head);
  for (const View& view : views) AddErrors(head, view, bounds);
  // The sums over queries, one after the other.
  const double sums = kUnit * static_cast<double>(views.size());
  for (size_t j = 0; j < tokens; ++j) {
    bounds.attention_bound[j] += sums * bounds.attention[j];
    bounds.error_sums_bound[j] += sums * bounds.error_sums[j];
    bounds.prompt_errors_bound[j] += sums * bounds.prompt_errors[j];
  }
  return bounds;
}

double Form(const std::vector<double>& x,
            const std::vector<float>& gram,
            const std::vector<double>& y) {
  double sum = 0.0;
  for (size_t a = 0; a < x.size(); ++a) {
    double row = 0.0;
    for (size_t b = 0; b < y.size(); ++b) row += gram[a * y.size() + b] * y[b];
    sum += x[a] * row;
  }
  return sum;
}

double FormOfSizes(const std::vector<double>& x,
                   const std::vector<float>& gram,
                   const std::vector<double>& y) {
  double sum = 0.0;
  for (size_t a = 0; a < x.size(); ++a) {
    double row = 0.0;
    for (size_t b = 0; b < y.size(); ++b) row += std::abs(gram[a * y.size() + b] * y[b]);
    sum += std::abs(x[a]) * row;
  }
  return sum;
}

}  // namespace kvc::cuda
