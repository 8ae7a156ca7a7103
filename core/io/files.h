#pragma once
// Reading whole files, hashing them, copying them, and writing them so that they appear whole or
// not at all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace kvc {

// Throws kIo (with the system's reason), or kBadInput when larger than `max_bytes`.
[[nodiscard]] std::string ReadFile(const std::filesystem::path& path,
                                   int64_t max_bytes = 1LL << 32);
// Writes to a temporary name beside `path`, flushes, renames. Throws kIo.
void WriteFile(const std::filesystem::path& path, std::string_view bytes);

// Lower-case hexadecimal SHA-256.
[[nodiscard]] std::string Sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string Sha256File(const std::filesystem::path& path);

// Copies one file; throws kIo.
void CopyFile(const std::filesystem::path& from, const std::filesystem::path& to);

// float32 or int64 C-order NumPy file, format 1.0.
void WriteNpy(const std::filesystem::path& path,
              std::span<const float> values,
              const std::vector<int64_t>& shape);
void WriteNpy(const std::filesystem::path& path,
              std::span<const int64_t> values,
              const std::vector<int64_t>& shape);

}  // namespace kvc
