#include <algorithm>
#include <limits>

#include "model/projections.h"

namespace kvc::model {

using torch::Tensor;

int64_t FirstSeenKey(int64_t first, std::optional<int64_t> window) {
  return window ? std::max<int64_t>(0, first - *window + 1) : 0;
}

void HideUnseenKeys(const Tensor& logits, std::optional<int64_t> window) {
  const int64_t queries = logits.size(-2);  // C
  const int64_t keys = logits.size(-1);     // J
  const auto hidden = [&](int64_t columns) {
    return torch::full({queries, columns}, -std::numeric_limits<float>::infinity(),
                       logits.options());
  };
  // Query c's own key is column J - C + c.
  logits.narrow(-1, keys - queries, queries).add_(hidden(queries).triu_(1));
  if (window && *window < keys) logits.add_(hidden(keys).tril_(keys - queries - *window));
}

}  // namespace kvc::model
