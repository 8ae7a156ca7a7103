#include "core/io/atomic_file.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/mapped_file.h"

namespace kvc {
namespace {

// Returns the file that a write to `path` should replace: a link is followed, so that it stays a
// link.
std::filesystem::path Resolved(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_symlink(path, error)) {
    std::filesystem::path target = std::filesystem::canonical(path, error);
    if (!error) {
      return target;
    }
  }
  return path;
}

constexpr std::string_view kTemporarySuffix = ".tmp";

// Returns true for "PROCESS-NUMBER".
bool IsProcessAndNumber(std::string_view text) {
  const size_t dash = text.find('-');
  const auto digits = [](std::string_view part) {
    return !part.empty() && std::ranges::all_of(part, [](char c) { return c >= '0' && c <= '9'; });
  };
  return dash != std::string_view::npos && digits(text.substr(0, dash)) &&
         digits(text.substr(dash + 1));
}

// Removes the temporary files that killed writers of `target` left. One whose writer lives is
// locked; folders are their makers' business (core/io/output_directory.h).
void RemoveAbandonedFiles(const std::filesystem::path& target) {
  for (const std::filesystem::path& candidate : TemporariesBeside(target)) {
    const int descriptor =
        ::open(candidate.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (descriptor < 0) continue;
    struct stat status = {};
    if (::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode) &&
        ::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      ::unlink(candidate.c_str());
    }
    ::close(descriptor);
  }
}

// Takes the lock that says that the file's writer lives. Returns false if another process was
// faster, took the new file for an abandoned one, and removes it. A file system without locks has
// no abandoned files either.
bool LockTemporary(int descriptor) {
  struct stat status = {};
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) return false;
  return ::fstat(descriptor, &status) == 0 && status.st_nlink > 0;
}

}  // namespace

void ThrowSystemError(const std::filesystem::path& path, const char* action) {
  const int code = errno;
  KVC_THROW(kIo, "{}: expected to {}, got \"{}\"", path.string(), action,
            std::generic_category().message(code));
}

std::filesystem::path TemporaryNameBeside(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};
  const std::string name = "." + path.filename().string() + "." + std::to_string(::getpid()) + "-" +
                           std::to_string(counter.fetch_add(1)) + std::string(kTemporarySuffix);
  return path.parent_path() / name;
}

std::string TargetOfTemporary(std::string_view name) {
  if (!name.starts_with('.') || !name.ends_with(kTemporarySuffix)) return "";
  name.remove_suffix(kTemporarySuffix.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos || dot < 2 || !IsProcessAndNumber(name.substr(dot + 1))) {
    return "";
  }
  return std::string(name.substr(1, dot - 1));
}

std::vector<std::filesystem::path> TemporariesBeside(const std::filesystem::path& path) {
  const std::string target = path.filename().string();
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  std::vector<std::filesystem::path> found;
  std::error_code error;
  for (std::filesystem::directory_iterator it(parent, error), end; !error && it != end;
       it.increment(error)) {
    const std::string of = TargetOfTemporary(it->path().filename().string());
    if (!of.empty() && of == target) found.push_back(it->path());
  }
  return found;
}

void SyncToDisk(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    ThrowSystemError(path, "open");
  }
  const int status = ::fsync(descriptor);
  const int code = errno;
  ::close(descriptor);
  // Some file systems cannot sync a directory and say so; there is nothing to do about it.
  if (status != 0 && code != EINVAL && code != EROFS) {
    errno = code;
    ThrowSystemError(path, "flush to disk");
  }
}

AtomicFile::AtomicFile(const std::filesystem::path& path) : target_(Resolved(path)) {
  std::error_code error;
  const auto status = std::filesystem::status(target_, error);
  KVC_CHECK(!std::filesystem::is_directory(status), kIo,
            "{}: expected a file to write, got a directory", target_.string());
  const bool direct = std::filesystem::exists(status) && !std::filesystem::is_regular_file(status);
  if (direct) {
    descriptor_ = ::open(target_.c_str(), O_WRONLY | O_CLOEXEC);
    if (descriptor_ < 0) ThrowSystemError(target_, "create the file");
  } else {
    RemoveAbandonedFiles(target_);
    OpenTemporary();
  }
}

void AtomicFile::OpenTemporary() {
  do {
    if (descriptor_ >= 0) ::close(descriptor_);
    temporary_ = TemporaryNameBeside(target_);
    descriptor_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0) ThrowSystemError(target_, "create the file");
  } while (!LockTemporary(descriptor_));
}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) {
    return;
  }
  ::close(descriptor_);
  if (!temporary_.empty()) {
    ::unlink(temporary_.c_str());
  }
}

void AtomicFile::Write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) {
      continue;
    }
    if (written < 0) {
      ThrowSystemError(target_, "write");
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
}

void AtomicFile::Copy(const MappedFile& source, int64_t offset, int64_t count) {
  const auto size = static_cast<int64_t>(source.bytes().size());
  KVC_CHECK(offset >= 0 && count >= 0 && offset <= size && count <= size - offset, kInternal,
            "{}: expected to copy a range inside {} bytes, got {} + {}", target_.string(), size,
            offset, count);
  off_t from = offset;
  const int64_t end = offset + count;
  while (from < end) {
    const ssize_t copied = ::copy_file_range(source.descriptor(), &from, descriptor_, nullptr,
                                             static_cast<size_t>(end - from), /*flags=*/0);
    if (copied < 0 && errno == EINTR) continue;
    if (copied <= 0) break;
  }
  // Bytes that the file systems cannot copy are written. An error of the copy occurs again there,
  // and is reported.
  Write(source.bytes().subspan(static_cast<size_t>(from), static_cast<size_t>(end - from)));
}

void AtomicFile::Commit(bool sync) {
  KVC_CHECK(descriptor_ >= 0, kInternal, "{}: expected one Commit, got a second", target_.string());
  if (sync && !temporary_.empty() && ::fsync(descriptor_) != 0) {
    ThrowSystemError(target_, "flush to disk");
  }
  if (!temporary_.empty() && ::rename(temporary_.c_str(), target_.c_str()) != 0) {
    ThrowSystemError(target_, "rename into place");
  }
  temporary_.clear();
  const int status = ::close(descriptor_);
  descriptor_ = -1;
  if (status != 0) {
    ThrowSystemError(target_, "close");
  }
  if (sync && std::filesystem::is_regular_file(target_)) {
    const std::filesystem::path parent = target_.parent_path();
    SyncToDisk(parent.empty() ? std::filesystem::path(".") : parent);
  }
}

}  // namespace kvc
