#include "core/io/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace kvc {
namespace {

// Returns true if `path` still names the open folder: the previous holder of the lock may have
// renamed it.
bool StillNames(const std::filesystem::path& path, int descriptor) {
  struct stat named = {};
  struct stat open = {};
  return ::stat(path.c_str(), &named) == 0 && ::fstat(descriptor, &open) == 0 &&
         named.st_dev == open.st_dev && named.st_ino == open.st_ino;
}

}  // namespace

DirectoryLock::DirectoryLock(const std::filesystem::path& directory)
    : descriptor_(::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0) {
    ThrowSystemError(directory, "open the directory");
  }
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 || !StillNames(directory, descriptor_)) {
    ::close(descriptor_);
    KVC_THROW(kUsage,
              "{}: expected no other run to write it, got a locked directory; wait for that run",
              directory.string());
  }
}

DirectoryLock::~DirectoryLock() { ::close(descriptor_); }

}  // namespace kvc
