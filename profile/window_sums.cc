#include "profile/window_sums.h"

#include <algorithm>
#include <utility>

namespace kvc::profile {
namespace {

int64_t LengthOf(const std::vector<std::span<double>>& slots) {
  int64_t length = 0;
  for (const auto& slot : slots) length += std::ssize(slot);
  return length;
}

}  // namespace

WindowSums::WindowSums(Ranks& ranks, int64_t num_windows, std::vector<std::span<double>> slots)
    : slots_(std::move(slots)),
      part_(LengthOf(slots_)),
      sum_(ranks, num_windows, LengthOf(slots_)) {}

void WindowSums::TakeWindow() {
  auto at = part_.begin();
  for (const auto& slot : slots_) {
    at = std::ranges::copy(slot, at).out;
    std::ranges::fill(slot, 0.0);
  }
  sum_.Add(part_);
}

void WindowSums::Finish() {
  const std::vector<double> sum = sum_.Finish();
  auto at = sum.begin();
  for (const auto& slot : slots_) {
    std::copy_n(at, slot.size(), slot.begin());
    at += std::ssize(slot);
  }
}

}  // namespace kvc::profile
