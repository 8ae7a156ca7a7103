#include "core/io/atomic_file.h"

#include <atomic>
#include <cerrno>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/mapped_source.h"

namespace kvc {
namespace {

// The file that a write to `path` should replace: a link is followed, so that it stays a link.
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

// Below, looking for the file costs more than the copy.
constexpr size_t kKernelCopyBytes = 1 << 20;

// Copies mapped bytes from their file and returns how many: fewer, or none, where they are not
// mapped or the file systems have no such copy.
size_t CopyInsideKernel(std::span<const std::byte> bytes, int target) {
  if (bytes.size() < kKernelCopyBytes) return 0;
  const auto source = FindMappedSource(bytes);
  if (!source.has_value()) return 0;
  off_t offset = source->offset;
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::copy_file_range(source->descriptor, &offset, target, nullptr,
                                            bytes.size() - done, /*flags=*/0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    done += static_cast<size_t>(count);
  }
  return done;
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
                           std::to_string(counter.fetch_add(1)) + ".tmp";
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
  // What goes wrong there goes wrong again below, where it is told.
  bytes = bytes.subspan(CopyInsideKernel(bytes, descriptor_));
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
