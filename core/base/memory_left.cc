#include "core/base/memory_left.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>

namespace kvc {
namespace {

std::string TextOf(const char* path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// The number at the beginning of a text, behind blanks; null where there is none.
std::optional<int64_t> NumberAt(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return number;
}

}  // namespace

std::optional<int64_t> MemoryLeft(std::string_view meminfo,
                                  std::string_view limit,
                                  std::string_view used) {
  constexpr std::string_view kAvailable = "MemAvailable:";
  std::optional<int64_t> left;
  if (const size_t at = meminfo.find(kAvailable); at != std::string_view::npos) {
    const auto kilobytes = NumberAt(meminfo.substr(at + kAvailable.size()));
    if (kilobytes) left = *kilobytes * 1024;
  }
  const auto most = NumberAt(limit);
  const auto taken = NumberAt(used);
  if (most && taken) {
    const int64_t of_group = std::max<int64_t>(0, *most - *taken);
    left = left ? std::min(*left, of_group) : of_group;
  }
  return left;
}

std::optional<int64_t> MemoryLeft() {
  // Inside a container these are the container's own.
  return MemoryLeft(TextOf("/proc/meminfo"), TextOf("/sys/fs/cgroup/memory.max"),
                    TextOf("/sys/fs/cgroup/memory.current"));
}

}  // namespace kvc
