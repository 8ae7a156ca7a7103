#pragma once
// Sums over the windows of a layer that several ranks visit (core/base/ranks.h): window w belongs
// to rank w mod size, and the windows are added up in their order, whatever the number of ranks.

#include <cstdint>
#include <span>
#include <vector>

#include "core/base/ordered_sum.h"
#include "core/base/ranks.h"

namespace kvc::profile {

class WindowSums {
 public:
  // `slots` are zeros that the visits of one window add to; they must outlive it.
  WindowSums(Ranks& ranks, int64_t num_windows, std::vector<std::span<double>> slots);

  // Takes what this rank's next window has added to the slots, which are zeros again. May wait for
  // the other ranks.
  void TakeWindow();
  // Collective: sets the slots to the sums over all windows.
  void Finish();

 private:
  std::vector<std::span<double>> slots_;
  std::vector<double> part_;  // the slots one after the other
  OrderedSum<double> sum_;
};

}  // namespace kvc::profile
