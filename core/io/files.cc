#include "core/io/files.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/error.h"
#include "core/io/atomic_file.h"

namespace kvc {
namespace {

constexpr size_t kReadBytes = 1 << 20;

// An open file that closes itself.
class ReadHandle {
 public:
  explicit ReadHandle(const std::filesystem::path& path)
      : path_(path), descriptor_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (descriptor_ < 0) {
      ThrowSystemError(path, "open");
    }
  }
  ~ReadHandle() { ::close(descriptor_); }
  ReadHandle(const ReadHandle&) = delete;
  ReadHandle& operator=(const ReadHandle&) = delete;

  // Returns the bytes that stat reports; 0 for anything but a regular file. Throws for a directory.
  [[nodiscard]] int64_t Size() const {
    struct stat status = {};
    if (::fstat(descriptor_, &status) != 0) {
      ThrowSystemError(path_, "read its size");
    }
    KVC_CHECK(!S_ISDIR(status.st_mode), kIo, "{}: expected a file, got a directory",
              path_.string());
    return S_ISREG(status.st_mode) ? static_cast<int64_t>(status.st_size) : 0;
  }
  // Fills as much of `target` as the file gives; returns 0 at its end.
  [[nodiscard]] size_t Read(std::span<char> target) const {
    while (true) {
      const ssize_t count = ::read(descriptor_, target.data(), target.size());
      if (count >= 0) {
        return static_cast<size_t>(count);
      }
      if (errno != EINTR) {
        ThrowSystemError(path_, "read");
      }
    }
  }

 private:
  const std::filesystem::path& path_;
  int descriptor_;
};

// SHA-256 over pieces.
class Hasher {
 public:
  Hasher() : context_(EVP_MD_CTX_new()) {
    KVC_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1,
              kInternal, "SHA-256: expected OpenSSL to provide it, got an error");
  }
  ~Hasher() { EVP_MD_CTX_free(context_); }
  Hasher(const Hasher&) = delete;
  Hasher& operator=(const Hasher&) = delete;

  void Add(const void* data, size_t count) {
    KVC_CHECK(EVP_DigestUpdate(context_, data, count) == 1, kInternal,
              "SHA-256: expected to take {} bytes, got an error", count);
  }
  std::string Finish() {
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int length = 0;
    KVC_CHECK(EVP_DigestFinal_ex(context_, digest, &length) == 1, kInternal,
              "SHA-256: expected to finish, got an error");
    static constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (unsigned int i = 0; i < length; ++i) {
      text += kDigits[digest[i] >> 4];
      text += kDigits[digest[i] & 15];
    }
    return text;
  }

 private:
  EVP_MD_CTX* context_;
};

// NumPy's format 1.0: magic, version, header length, a Python dictionary padded to 64 bytes, data.
std::string NpyHeader(const char* type, const std::vector<int64_t>& shape) {
  std::string dictionary =
      std::string("{'descr': '") + type + "', 'fortran_order': False, 'shape': (";
  for (const int64_t size : shape) {
    dictionary += std::to_string(size) + ",";
  }
  dictionary += "), }";
  const size_t unpadded = 10 + dictionary.size() + 1;
  dictionary.append((64 - unpadded % 64) % 64, ' ');
  dictionary += '\n';
  KVC_CHECK(dictionary.size() < 65536, kInternal, "npy: expected few dimensions, got {}",
            shape.size());
  std::string header("\x93NUMPY\x01\x00", 8);
  header += static_cast<char>(dictionary.size() & 255U);
  header += static_cast<char>(dictionary.size() >> 8);
  return header + dictionary;
}

template <class T>
void WriteNpyOf(const std::filesystem::path& path,
                const char* type,
                std::span<const T> values,
                const std::vector<int64_t>& shape) {
  int64_t count = 1;
  for (const int64_t size : shape) {
    count *= size;
  }
  KVC_CHECK(count == static_cast<int64_t>(values.size()), kInternal,
            "{}: expected {} values, got {}", path.string(), count, values.size());
  AtomicFile file(path);
  file.Write(std::as_bytes(std::span<const char>(NpyHeader(type, shape))));
  file.Write(std::as_bytes(values));
  file.Commit(/*sync=*/false);
}

}  // namespace

std::string ReadFile(const std::filesystem::path& path, int64_t max_bytes) {
  const ReadHandle file(path);
  const int64_t expected = file.Size();
  std::string text;
  size_t used = 0;
  size_t room = static_cast<size_t>(std::min(expected, max_bytes)) + 1;
  while (true) {
    text.resize(used + room);
    const size_t count = file.Read({text.data() + used, room});
    used += count;
    KVC_CHECK(static_cast<int64_t>(used) <= max_bytes && expected <= max_bytes, kBadInput,
              "{}: expected at most {} bytes, got {}", path.string(), max_bytes,
              std::max(expected, static_cast<int64_t>(used)));
    if (count == 0) {
      break;
    }
    room = std::max(kReadBytes, room) - (count < room ? count : 0);
    room = std::max<size_t>(room, 1);
  }
  text.resize(used);
  return text;
}

void WriteFile(const std::filesystem::path& path, std::string_view bytes) {
  AtomicFile file(path);
  file.Write(std::as_bytes(std::span<const char>(bytes)));
  file.Commit(/*sync=*/true);
}

std::string Sha256(std::span<const std::byte> bytes) {
  Hasher hasher;
  hasher.Add(bytes.data(), bytes.size());
  return hasher.Finish();
}

std::string Sha256File(const std::filesystem::path& path) {
  const ReadHandle file(path);
  (void)file.Size();  // refuses a directory
  Hasher hasher;
  std::vector<char> buffer(kReadBytes);
  while (const size_t count = file.Read(buffer)) {
    hasher.Add(buffer.data(), count);
  }
  return hasher.Finish();
}

void CopyFile(const std::filesystem::path& from, const std::filesystem::path& to) {
  namespace fs = std::filesystem;
  std::error_code error;
  fs::copy_file(from, to, fs::copy_options::overwrite_existing, error);
  if (!error) {
    // A read-only source must not make an output that the next run cannot replace.
    fs::permissions(to, fs::perms::owner_write, fs::perm_options::add, error);
  }
  KVC_CHECK(!error, kIo, "{}: expected to copy {}, got \"{}\"", to.string(), from.string(),
            error.message());
}

void WriteNpy(const std::filesystem::path& path,
              std::span<const float> values,
              const std::vector<int64_t>& shape) {
  WriteNpyOf(path, "<f4", values, shape);
}

void WriteNpy(const std::filesystem::path& path,
              std::span<const int64_t> values,
              const std::vector<int64_t>& shape) {
  WriteNpyOf(path, "<i8", values, shape);
}

}  // namespace kvc
