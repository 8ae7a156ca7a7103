#include "scorers/window_attention.h"

#include <algorithm>

#include "core/base/error.h"
#include "kernels/elementwise.h"
#include "kernels/row_product.h"
#include "scorers/float_matrix.h"

namespace kvc::scorers {
namespace {

void MaxPool(std::span<const float> x, int64_t pool, std::span<float> s) {
  const int64_t count = static_cast<int64_t>(x.size());
  const int64_t reach = pool / 2;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = std::max<int64_t>(0, i - reach);
    const int64_t end = std::min(count, i + reach + 1);
    s[i] = *std::max_element(x.begin() + begin, x.begin() + end);
  }
}

}  // namespace

void WindowAttention(ConstMatrixF queries, const HeadInput& head, MatrixF attention) {
  FloatMatrix scaled(queries.rows, queries.cols);
  for (int64_t i = 0; i < queries.rows; ++i) {
    for (int64_t d = 0; d < queries.cols; ++d) {
      scaled.view(i, d) = static_cast<float>(head.scale) * queries(i, d);
    }
  }
  kernels::MultiplyRows(scaled.view, head.keys, head.rounding, attention);
  const int64_t first = head.keys.rows - queries.rows;  // position of the first query
  for (int64_t i = 0; i < queries.rows; ++i) {
    const int64_t visible = first + i + 1;
    float* row = attention.row(i);  // [T]
    kernels::SoftmaxRows({row, 1, visible});
    std::fill(row + visible, row + attention.cols, 0.0F);
  }
}

void PoolWindowApart(std::span<const float> x, int64_t window, int64_t pool, std::span<float> s) {
  const size_t split = x.size() - static_cast<size_t>(window);
  MaxPool(x.first(split), pool, s.first(split));
  MaxPool(x.subspan(split), pool, s.subspan(split));
}

int64_t PoolWidth(ScorerKind kind, const ScorerOptions& options) {
  const int64_t pool = options.pool == 0 ? DefaultPool(kind) : options.pool;
  KVC_CHECK(pool >= 1 && pool % 2 == 1, kUsage, "{}: expected an odd pool width, got {}",
            ScorerName(kind), pool);
  return pool;
}

}  // namespace kvc::scorers
