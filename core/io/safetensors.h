#pragma once
// safetensors files: a mapped reader with the format's whole list of checks, a sharded set, and a
// streaming writer. https://github.com/huggingface/safetensors, "Format".

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/base/dtype.h"

namespace kvc {

class AtomicFile;  // core/io/atomic_file.h

// A tensor inside a mapped file, borrowed from the reader, which must outlive it.
struct TensorRef {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;  // not necessarily aligned to the element

  [[nodiscard]] int64_t num_elements() const;
};

// One or several mapped files that together hold named tensors. Opening validates every header:
// size cap (100 MB), UTF-8 JSON object, shape x dtype equals the byte range (checked
// multiplication), ranges contiguous, not overlapping, covering the file; no duplicate names.
// A tensor of a dtype that DType does not have (F8_E4M3, U16, ...) may stand in a file; nobody can
// get it, and of its size only the range is checked. Throws kBadInput naming the file and the
// tensor, or what the file is instead (core/io/file_kind.h); kIo when a file cannot be opened.
class SafetensorsReader {
 public:
  // Opens one file.
  static SafetensorsReader OpenFile(const std::filesystem::path& path);
  // Opens DIR/model.safetensors, or the shards of DIR/model.safetensors.index.json (every shard
  // named there must exist inside DIR; see missing() for tensors that it does not hold).
  static SafetensorsReader OpenDirectory(const std::filesystem::path& directory);

  SafetensorsReader(SafetensorsReader&&) noexcept;
  SafetensorsReader& operator=(SafetensorsReader&&) noexcept;
  ~SafetensorsReader();

  // True when Get returns the tensor.
  [[nodiscard]] bool Contains(const std::string& name) const;
  // Returns a tensor. Throws kBadInput when it is absent, kUnsupported for a dtype that is not
  // read.
  [[nodiscard]] const TensorRef& Get(const std::string& name) const;
  // Returns the sorted names of the tensors that Get returns.
  [[nodiscard]] std::vector<std::string> names() const;
  // The other tensors of the files, with the names of their dtypes.
  [[nodiscard]] const std::map<std::string, std::string>& unreadable() const;
  // The sorted names that the index gives to a shard which does not hold them.
  [[nodiscard]] const std::vector<std::string>& missing() const;
  [[nodiscard]] const std::map<std::string, std::string>& metadata() const;
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const;
  // Appends the tensor's bytes to a file (AtomicFile::Copy). Throws kIo.
  void CopyTo(const std::string& name, AtomicFile& file) const;
  // Tells the kernel that the tensor's pages are no longer needed (madvise), so that a streamed
  // pass over a large checkpoint does not grow the resident set.
  void Release(const std::string& name) const;
  // Makes the disk begin to read the tensor; returns at once.
  void Prefetch(const std::string& name) const;

 private:
  struct Impl;
  explicit SafetensorsReader(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

struct TensorSpec {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
};

// Writes one file tensor by tensor: the header first (all specs are known), then each tensor's
// bytes in the order of `specs`. Nothing is held in memory.
class SafetensorsWriter {
 public:
  SafetensorsWriter(const std::filesystem::path& path,
                    std::vector<TensorSpec> specs,
                    const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  // Writes the next tensor. `name` must be the next spec's, `bytes` its size. Throws kInternal
  // otherwise, kIo when the disk is full.
  void Write(const std::string& name, std::span<const std::byte> bytes);
  // Writes the next tensor with the bytes of the tensor of that name in `source`, copied inside the
  // kernel if the file systems can.
  void Copy(const std::string& name, const SafetensorsReader& source);
  // Writes the next tensor from floats, converted to the spec's dtype.
  void WriteFloats(const std::string& name, std::span<const float> values);
  // Closes the file, which appears under its name only now. Throws kInternal when tensors are
  // missing.
  void Close();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace kvc
