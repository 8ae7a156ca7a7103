#include "kernels/emulator/address_range.h"

#include <iterator>

namespace kvc::emulator {
namespace {

constexpr size_t kAlignment = 256;  // as cudaMalloc's
constexpr size_t kGapBytes = 256;

}  // namespace

std::optional<size_t> AddressRange::Find(size_t from, size_t bytes) const {
  size_t place = from;
  while (place + bytes <= bytes_) {
    const auto above = taken_.lower_bound(place + bytes);
    if (above == taken_.begin()) return place;
    const auto& [offset, size] = *std::prev(above);
    if (offset + size <= place) return place;
    place = offset + size;
  }
  return std::nullopt;
}

std::optional<size_t> AddressRange::Take(size_t bytes) {
  const size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment + kGapBytes;
  std::optional<size_t> place = Find(next_, whole);
  if (!place) place = Find(0, whole);
  if (!place) return std::nullopt;
  taken_.emplace(*place, whole);
  next_ = *place + whole;
  return place;
}

void AddressRange::Give(size_t offset) { taken_.erase(offset); }

}  // namespace kvc::emulator
