#include "core/io/mapped_file.h"

#include <cerrno>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace kvc {
namespace {

// Closes the file and throws the reason why it cannot be mapped.
[[noreturn]] void Fail(int descriptor, const std::filesystem::path& path, const char* action) {
  const int code = errno;
  ::close(descriptor);
  errno = code;
  ThrowSystemError(path, action);
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) ThrowSystemError(path, "open");
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) Fail(descriptor, path, "read its size");
  if (S_ISDIR(status.st_mode)) {
    errno = EISDIR;
    Fail(descriptor, path, "map");
  }
  const auto size = static_cast<size_t>(S_ISREG(status.st_mode) ? status.st_size : 0);
  if (size == 0) {
    ::close(descriptor);
    return;  // mmap refuses a length of 0
  }
  void* mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (mapped == MAP_FAILED) Fail(descriptor, path, "map");
  data_ = static_cast<const std::byte*>(mapped);
  size_ = size;
  descriptor_ = descriptor;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) {
    ::munmap(const_cast<std::byte*>(data_), size_);
    ::close(descriptor_);
  }
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

void MappedFile::Advise(int64_t offset, int64_t count, int advice) const {
  KVC_CHECK(offset >= 0 && count >= 0 && offset <= static_cast<int64_t>(size_) &&
                count <= static_cast<int64_t>(size_) - offset,
            kInternal, "mapped file: expected a range inside {} bytes, got {} + {}", size_, offset,
            count);
  if (count == 0) {
    return;
  }
  // Whole pages: those at the ends are shared with neighbours.
  const int64_t page = ::sysconf(_SC_PAGESIZE);
  const int64_t begin = offset / page * page;
  // Advice only: a kernel that does not take it costs memory or time, not correctness.
  (void)::madvise(const_cast<std::byte*>(data_) + begin,
                  static_cast<size_t>(offset + count - begin), advice);
}

void MappedFile::Release(int64_t offset, int64_t count) const {
  Advise(offset, count, MADV_DONTNEED);
}

void MappedFile::Prefetch(int64_t offset, int64_t count) const {
  Advise(offset, count, MADV_WILLNEED);
}

}  // namespace kvc
