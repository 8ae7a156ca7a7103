#pragma once
// Lock on a folder that only one run at a time may write.

#include <filesystem>

namespace kvc {

// An exclusive lock on a folder (flock), held until the object or the process dies. It leaves no
// file, and does not stop programs that do not ask for it.
class DirectoryLock {
 public:
  // Throws kUsage at once when another run holds the lock, or has just moved the folder away; kIo
  // when the folder cannot be opened.
  explicit DirectoryLock(const std::filesystem::path& directory);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace kvc
