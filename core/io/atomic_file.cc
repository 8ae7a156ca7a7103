#include "core/io/atomic_file.h"

#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
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

}  // namespace

void ThrowSystemError(const std::filesystem::path& path, const char* action) {
  const int code = errno;
  KVC_THROW(kIo, "{}: expected to {}, got \"{}\"", path.string(), action,
            std::generic_category().message(code));
}

std::filesystem::path TemporaryNameBeside(const std::filesystem::path& path) {
  static std::atomic<uint64_t> counter{0};
  const std::string name = "." + path.filename().string() + "." + std::to_string(::getpid()) + "-" +
                           std::to_string(counter.fetch_add(1)) + kTemporarySuffix;
  return path.parent_path() / name;
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
  if (!direct) {
    temporary_ = TemporaryNameBeside(target_);
  }
  const int flags = direct ? O_WRONLY | O_CLOEXEC : O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
  descriptor_ = ::open(direct ? target_.c_str() : temporary_.c_str(), flags, 0666);
  if (descriptor_ < 0) {
    ThrowSystemError(target_, "create the file");
  }
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
