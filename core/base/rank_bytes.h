#pragma once
// Numbers as the bytes that ranks send one another (core/base/ranks.h).

#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "core/base/error.h"

namespace kvc {

// Appends the bytes of `values`, in the order of this machine.
template <class T>
void AppendBytes(std::string& bytes, std::span<T> values) {
  static_assert(std::is_trivially_copyable_v<T>);
  bytes.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

template <class T>
[[nodiscard]] std::string ToBytes(const std::vector<T>& values) {
  std::string bytes;
  AppendBytes(bytes, std::span(values));
  return bytes;
}

// Takes the first `count` values off `bytes`. Throws kInternal where there are fewer.
template <class T>
[[nodiscard]] std::vector<T> TakeValues(std::string_view& bytes, size_t count) {
  static_assert(std::is_trivially_copyable_v<T>);
  KVC_CHECK(bytes.size() >= count * sizeof(T), kInternal,
            "bytes of a rank: expected {} or more, got {}", count * sizeof(T), bytes.size());
  std::vector<T> values(count);
  if (count > 0) std::memcpy(values.data(), bytes.data(), count * sizeof(T));
  bytes.remove_prefix(count * sizeof(T));
  return values;
}

// Returns all values.
template <class T>
[[nodiscard]] std::vector<T> FromBytes(std::string_view bytes) {
  return TakeValues<T>(bytes, bytes.size() / sizeof(T));
}

}  // namespace kvc
