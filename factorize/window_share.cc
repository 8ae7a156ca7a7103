#include "factorize/window_share.h"

#include <algorithm>

namespace kvc::factorize {

WindowShare::WindowShare(const Windows& all, const Ranks& ranks) {
  const int64_t count = std::ssize(all);
  parts_ = std::min(count, kMostSumParts);
  for (const int64_t part : ranks.PartsOf(parts_)) {
    const int64_t end = (part + 1) * count / parts_;
    for (int64_t i = part * count / parts_; i < end; ++i) {
      windows_.push_back(all[i]);
      ends_.push_back(i + 1 == end);
    }
  }
}

Windows OwnWindows(const Windows& all, const Ranks& ranks) {
  Windows own;
  for (const int64_t i : ranks.PartsOf(std::ssize(all))) own.push_back(all[i]);
  return own;
}

}  // namespace kvc::factorize
