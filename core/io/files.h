#pragma once
// Reads whole files, hashes them, copies them, and writes them so that they appear whole or not at
// all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace kvc {

// Returns the content. Throws kIo (with the system's reason), or kBadInput when it is larger than
// `max_bytes`.
[[nodiscard]] std::string ReadFile(const std::filesystem::path& path,
                                   int64_t max_bytes = 1LL << 32);
// Writes to a temporary name beside `path`, flushes, renames. Throws kIo.
void WriteFile(const std::filesystem::path& path, std::string_view bytes);

// Returns the SHA-256 in lower-case hexadecimal.
[[nodiscard]] std::string Sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string Sha256File(const std::filesystem::path& path);

// Copies one file; throws kIo.
void CopyFile(const std::filesystem::path& from, const std::filesystem::path& to);

// Writes a C-order NumPy file of float32 or int64, format 1.0.
void WriteNpy(const std::filesystem::path& path,
              std::span<const float> values,
              const std::vector<int64_t>& shape);
void WriteNpy(const std::filesystem::path& path,
              std::span<const int64_t> values,
              const std::vector<int64_t>& shape);

}  // namespace kvc
