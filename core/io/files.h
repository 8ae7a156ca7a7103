#pragma once
// Reading whole files, mapping them, hashing them, and outputs that appear whole or not at all.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace kvc {

// Throws kIo (with the system's reason), or kBadInput when larger than `max_bytes`.
[[nodiscard]] std::string ReadFile(const std::filesystem::path& path,
                                   int64_t max_bytes = 1LL << 32);
// Writes to a temporary name beside `path`, flushes, renames. Throws kIo.
void WriteFile(const std::filesystem::path& path, std::string_view bytes);

// A file mapped for reading. Throws kIo.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Drops the pages of a range from the resident set; they come back when touched.
  void Release(int64_t offset, int64_t count) const;
  // Has the disk begin to read a range; returns at once.
  void Prefetch(int64_t offset, int64_t count) const;

 private:
  // madvise of the whole pages that a range touches. Throws kInternal for one outside the file.
  void Advise(int64_t offset, int64_t count, int advice) const;

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Lower-case hexadecimal SHA-256.
[[nodiscard]] std::string Sha256(std::span<const std::byte> bytes);
[[nodiscard]] std::string Sha256File(const std::filesystem::path& path);

// A directory that is written under a temporary name beside its final place and renamed by Commit.
// Without Commit the destructor removes it. With `resumable`, the temporary name is fixed
// (OUT.partial) and is kept when the object dies, so that a long stage can go on.
class OutputDirectory {
 public:
  // `target` must not exist or be empty, unless `force`: then Commit replaces it whole. Missing
  // parents are created. Throws kUsage (exists; is no directory; holds the working directory; its
  // OUT.partial is in use by another run), kIo.
  OutputDirectory(const std::filesystem::path& target, bool force, bool resumable = false);
  ~OutputDirectory();
  OutputDirectory(const OutputDirectory&) = delete;
  OutputDirectory& operator=(const OutputDirectory&) = delete;

  // Where to write now.
  [[nodiscard]] const std::filesystem::path& path() const { return temporary_; }
  void Commit();

 private:
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  std::vector<std::filesystem::path> created_parents_;  // outermost first
  bool resumable_ = false;
  bool committed_ = false;
  int lock_ = -1;  // keeps a second run out of the same OUT.partial
};

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
