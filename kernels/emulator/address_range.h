#pragma once
// Addresses of the emulated device, as offsets in a range: each allocation behind the one before,
// with a gap after it. Only when the range has been used up do addresses come again, in the first
// room from its beginning on, so that a pointer to what was freed stays wrong for long. Not safe
// for use by several threads at once.

#include <cstddef>
#include <map>
#include <optional>

namespace kvc::emulator {

class AddressRange {
 public:
  explicit AddressRange(size_t bytes) : bytes_(bytes) {}

  // The offset of `bytes` that nobody has, a multiple of 256; none where there is no room.
  [[nodiscard]] std::optional<size_t> Take(size_t bytes);
  // Gives back what was taken at an offset.
  void Give(size_t offset);

 private:
  [[nodiscard]] std::optional<size_t> Find(size_t from, size_t bytes) const;

  size_t bytes_;
  size_t next_ = 0;
  std::map<size_t, size_t> taken_;  // offset to bytes, gap included
};

}  // namespace kvc::emulator
