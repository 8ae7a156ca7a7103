#pragma once
// A file that appears under its name only when it is complete.
//
// Bytes go to a temporary file beside the target; Commit renames it. Without Commit the destructor
// removes it. The temporary is locked (flock) while its maker lives, so that the next writer of the
// same target removes what a killed one left. A target that exists and is not a regular file
// (/dev/stdout, a pipe) is written directly.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace kvc {

class MappedFile;  // core/io/mapped_file.h

class AtomicFile {
 public:
  // Throws kIo.
  explicit AtomicFile(const std::filesystem::path& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Throws kIo with the system's reason (no space left, ...).
  void Write(std::span<const std::byte> bytes);
  // Copies `count` bytes of another file from `offset` on, inside the kernel if the file systems
  // can: this takes half the processor time of writing from the mapping, whose pages must be mapped
  // first. Throws kIo, kInternal for a range outside the file.
  void Copy(const MappedFile& source, int64_t offset, int64_t count);
  // Closes and renames; with `sync`, the bytes reach the disk before the name does. Throws kIo.
  void Commit(bool sync);

 private:
  void OpenTemporary();

  std::filesystem::path target_;
  std::filesystem::path temporary_;  // empty: written directly
  int descriptor_ = -1;
};

// Throws kIo with "PATH: expected ACTION, got REASON", the reason from errno.
[[noreturn]] void ThrowSystemError(const std::filesystem::path& path, const char* action);

// Returns a name beside `path` that no other object of this or another process uses:
// ".NAME.PROCESS-NUMBER.tmp".
[[nodiscard]] std::filesystem::path TemporaryNameBeside(const std::filesystem::path& path);

// Returns the name of the file that a name of TemporaryNameBeside stands for, whichever process
// made it; "" for every other name.
[[nodiscard]] std::string TargetOfTemporary(std::string_view name);

// Returns what lies beside `path` under names that TemporaryNameBeside(path) gives in any process.
// A folder that cannot be listed has none.
[[nodiscard]] std::vector<std::filesystem::path> TemporariesBeside(
    const std::filesystem::path& path);

// Forces a file's or directory's content to the disk. Throws kIo.
void SyncToDisk(const std::filesystem::path& path);

}  // namespace kvc
