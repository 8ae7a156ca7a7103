#pragma once
// The windows of a text that a rank works on (core/base/ranks.h). Windows are cut into parts whose
// number depends on the number of windows alone, and sums over windows are taken part by part.

#include <cstdint>
#include <vector>

#include "core/base/ranks.h"
#include "factorize/calibration_text.h"

namespace kvc::factorize {

// Parts of a sum over windows, at most: every part crosses the network.
inline constexpr int64_t kMostSumParts = 64;

// The calibration windows of one rank. There are min(N, kMostSumParts) parts of N windows; part p
// has the windows p N / parts to (p + 1) N / parts, and belongs to rank p mod size.
class WindowShare {
 public:
  WindowShare(const Windows& all, const Ranks& ranks);

  // Returns this rank's windows, part after part.
  [[nodiscard]] const Windows& windows() const { return windows_; }
  // Returns the number of parts of all ranks.
  [[nodiscard]] int64_t parts() const { return parts_; }
  // Tells whether windows()[i] is the last of its part.
  [[nodiscard]] bool EndsPart(int64_t i) const { return ends_[i]; }

 private:
  int64_t parts_ = 0;
  Windows windows_;
  std::vector<bool> ends_;
};

// Returns this rank's windows where every window is a part.
[[nodiscard]] Windows OwnWindows(const Windows& all, const Ranks& ranks);

}  // namespace kvc::factorize
