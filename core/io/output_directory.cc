#include <cerrno>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/files.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

// Absolute, without trailing slash, links resolved.
fs::path Normalised(const fs::path& path) {
  std::error_code error;
  fs::path result = fs::weakly_canonical(fs::absolute(path), error);
  if (error) {
    result = fs::absolute(path).lexically_normal();
  }
  return result.has_filename() ? result : result.parent_path();
}

bool IsPrefixOf(const fs::path& prefix, const fs::path& path) {
  const fs::path relative = path.lexically_relative(prefix);
  return !relative.empty() && *relative.begin() != "..";
}

void CheckTarget(const fs::path& target, bool force) {
  std::error_code error;
  const auto status = fs::status(target, error);
  if (!fs::exists(status)) {
    return;
  }
  KVC_CHECK(fs::is_directory(status), kUsage,
            "{}: expected a directory or nothing there, got a file; choose another output",
            target.string());
  const bool empty = fs::is_empty(target, error);
  if (error) {
    KVC_THROW(kIo, "{}: expected to list it, got \"{}\"", target.string(), error.message());
  }
  KVC_CHECK(
      empty || force, kUsage,
      "{}: expected an empty directory or none, got one with files; use --force to replace it",
      target.string());
  KVC_CHECK(
      !IsPrefixOf(target, fs::current_path(error)) && target.has_filename(), kUsage,
      "{}: expected an output that can be replaced, got the working directory or one above it",
      target.string());
}

std::vector<fs::path> CreateParents(const fs::path& target) {
  std::vector<fs::path> missing;
  std::error_code error;
  for (fs::path p = target.parent_path(); !p.empty() && !fs::exists(p, error);
       p = p.parent_path()) {
    missing.insert(missing.begin(), p);
  }
  for (const fs::path& parent : missing) {
    if (::mkdir(parent.c_str(), 0777) != 0 && errno != EEXIST) {
      ThrowSystemError(parent, "create the directory");
    }
  }
  return missing;
}

// Takes the lock of a resumable directory; it goes away with the process.
int Lock(const fs::path& directory) {
  const int descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    ThrowSystemError(directory, "open the directory");
  }
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor);
    KVC_THROW(kUsage,
              "{}: expected no other run to write it, got a locked directory; wait for that run",
              directory.string());
  }
  return descriptor;
}

void SyncTree(const fs::path& directory) {
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.is_regular_file() || entry.is_directory()) {
      SyncToDisk(entry.path());
    }
  }
  SyncToDisk(directory);
}

}  // namespace

OutputDirectory::OutputDirectory(const fs::path& target, bool force, bool resumable)
    : target_(Normalised(target)), resumable_(resumable) {
  CheckTarget(target_, force);
  created_parents_ = CreateParents(target_);
  if (resumable_) {
    temporary_ = target_;
    temporary_ += ".partial";
  } else {
    temporary_ = TemporaryNameBeside(target_);
  }
  if (::mkdir(temporary_.c_str(), 0777) != 0 && !(resumable_ && errno == EEXIST)) {
    ThrowSystemError(temporary_, "create the directory");
  }
  if (resumable_) {
    lock_ = Lock(temporary_);
  }
}

OutputDirectory::~OutputDirectory() {
  if (lock_ >= 0) {
    ::close(lock_);
  }
  if (committed_ || resumable_) {
    return;
  }
  std::error_code ignored;  // nothing can be done about a failure while unwinding
  fs::remove_all(temporary_, ignored);
  for (auto parent = created_parents_.rbegin(); parent != created_parents_.rend(); ++parent) {
    ::rmdir(parent->c_str());  // fails, rightly, when someone else put a file there
  }
}

void OutputDirectory::Commit() {
  KVC_CHECK(!committed_, kInternal, "{}: expected one Commit, got a second", target_.string());
  SyncTree(temporary_);
  fs::path old;
  // rename(2) replaces an empty directory, but not a full one: move that out of the way first.
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) {
      ThrowSystemError(target_, "rename into place");
    }
    old = TemporaryNameBeside(target_);
    if (::rename(target_.c_str(), old.c_str()) != 0) {
      ThrowSystemError(target_, "move the old directory away");
    }
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
      const int code = errno;
      (void)::rename(old.c_str(), target_.c_str());
      errno = code;
      ThrowSystemError(target_, "rename into place");
    }
  }
  committed_ = true;
  SyncToDisk(target_.parent_path());
  if (!old.empty()) {
    std::error_code error;
    fs::remove_all(old, error);
    KVC_CHECK(!error, kIo, "{}: expected to remove the old output, got \"{}\"", old.string(),
              error.message());
  }
}

}  // namespace kvc
