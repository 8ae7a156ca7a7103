#pragma once
// A file whose bytes are mapped into memory, together with the open file: bytes that are copied
// from it to another file can stay inside the kernel (core/io/atomic_file.h, Copy).

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace kvc {

// The bytes of one file, mapped for reading. Throws kIo.
// Thread-safe as a constant object.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  [[nodiscard]] std::span<const std::byte> bytes() const { return {data_, size_}; }
  // Returns the file, open for reading while the object lives; -1 for an empty one.
  [[nodiscard]] int descriptor() const { return descriptor_; }
  // Drops the pages of a range from the resident set; they come back when touched.
  void Release(int64_t offset, int64_t count) const;
  // Makes the disk begin to read a range; returns at once.
  void Prefetch(int64_t offset, int64_t count) const;

 private:
  // Calls madvise on the whole pages that a range touches. Throws kInternal for one outside the
  // file.
  void Advise(int64_t offset, int64_t count, int advice) const;

  const std::byte* data_ = nullptr;
  size_t size_ = 0;
  int descriptor_ = -1;
};

}  // namespace kvc
