#include <algorithm>
#include <cstring>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc {
namespace {

constexpr int64_t kChunkElements = 1 << 16;  // converted at a time

int64_t BytesOf(const TensorSpec& spec) {
  int64_t bytes = DTypeBytes(spec.dtype);
  for (const int64_t size : spec.shape) {
    KVC_CHECK(size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes), kInternal,
              "{}: expected a shape whose size fits 63 bits, got a size of {}", spec.name, size);
  }
  return bytes;
}

// Length, JSON and the spaces that align the data to 8 bytes.
std::string HeaderOf(const std::vector<TensorSpec>& specs,
                     const std::map<std::string, std::string>& metadata) {
  // Looking a key up in nlohmann's ordered object is linear; thousands of tensors are appended to
  // the text one by one instead.
  std::string text = "{";
  if (!metadata.empty()) {
    text += "\"__metadata__\":" + Json(metadata).dump() + ",";
  }
  int64_t position = 0;
  for (const TensorSpec& spec : specs) {
    Json info;
    info["dtype"] = std::string(SafetensorsName(spec.dtype));
    info["shape"] = spec.shape;
    info["data_offsets"] = {position, position + BytesOf(spec)};
    position += BytesOf(spec);
    text += Json(spec.name).dump() + ":" + info.dump() + ",";
  }
  if (text.back() == ',') {
    text.pop_back();
  }
  text += "}";
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t length = text.size();
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, sizeof(length));
  return prefix + text;
}

void CheckNames(const std::vector<TensorSpec>& specs) {
  std::vector<std::string> names;
  names.reserve(specs.size());
  for (const TensorSpec& spec : specs) {
    names.push_back(spec.name);
  }
  std::sort(names.begin(), names.end());
  const auto twice = std::adjacent_find(names.begin(), names.end());
  KVC_CHECK(twice == names.end(), kInternal,
            "safetensors: expected each name once, got \"{}\" twice", *twice);
}

}  // namespace

struct SafetensorsWriter::Impl {
  explicit Impl(const std::filesystem::path& path) : origin(path.string()), file(path) {}

  const TensorSpec& Next(const std::string& name) {
    KVC_CHECK(next < specs.size() && specs[next].name == name, kInternal, "{}: expected {}, got {}",
              origin, next < specs.size() ? specs[next].name : "no further tensor", name);
    return specs[next++];
  }

  std::string origin;
  AtomicFile file;
  std::vector<TensorSpec> specs;
  size_t next = 0;
};

SafetensorsWriter::SafetensorsWriter(const std::filesystem::path& path,
                                     std::vector<TensorSpec> specs,
                                     const std::map<std::string, std::string>& metadata) {
  CheckNames(specs);
  const std::string header = HeaderOf(specs, metadata);
  impl_ = std::make_unique<Impl>(path);
  impl_->specs = std::move(specs);
  impl_->file.Write(std::as_bytes(std::span<const char>(header)));
}

SafetensorsWriter::~SafetensorsWriter() = default;

void SafetensorsWriter::Write(const std::string& name, std::span<const std::byte> bytes) {
  const TensorSpec& spec = impl_->Next(name);
  KVC_CHECK(static_cast<int64_t>(bytes.size()) == BytesOf(spec), kInternal,
            "{}: {}: expected {} bytes, got {}", impl_->origin, name, BytesOf(spec), bytes.size());
  impl_->file.Write(bytes);
}

void SafetensorsWriter::Copy(const std::string& name, const SafetensorsReader& source) {
  const TensorSpec& spec = impl_->Next(name);
  const auto count = static_cast<int64_t>(source.Get(name).bytes.size());
  KVC_CHECK(count == BytesOf(spec), kInternal, "{}: {}: expected {} bytes, got {}", impl_->origin,
            name, BytesOf(spec), count);
  source.CopyTo(name, impl_->file);
}

void SafetensorsWriter::WriteFloats(const std::string& name, std::span<const float> values) {
  const TensorSpec& spec = impl_->Next(name);
  const int64_t width = DTypeBytes(spec.dtype);
  const auto count = static_cast<int64_t>(values.size());
  KVC_CHECK(count * width == BytesOf(spec), kInternal, "{}: {}: expected {} values, got {}",
            impl_->origin, name, BytesOf(spec) / width, count);
  if (spec.dtype == DType::kF32) {
    impl_->file.Write(std::as_bytes(values));
    return;
  }
  std::vector<std::byte> buffer(static_cast<size_t>(std::min(count, kChunkElements) * width));
  for (int64_t begin = 0; begin < count; begin += kChunkElements) {
    const int64_t part = std::min(kChunkElements, count - begin);
    ConvertFromFloat(values.data() + begin, part, spec.dtype, buffer.data());
    impl_->file.Write(std::span(buffer).first(static_cast<size_t>(part * width)));
  }
}

void SafetensorsWriter::Close() {
  KVC_CHECK(impl_->next == impl_->specs.size(), kInternal, "{}: expected {} tensors, got {}",
            impl_->origin, impl_->specs.size(), impl_->next);
  impl_->file.Commit(/*sync=*/false);
}

}  // namespace kvc
