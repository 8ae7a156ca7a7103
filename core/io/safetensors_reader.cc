#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/file_kind.h"
#include "core/io/json.h"
#include "core/io/mapped_file.h"
#include "core/io/safetensors.h"
#include "core/io/text_input.h"

namespace kvc {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the format's own implementation has it
constexpr int64_t kMaxIndexBytes = 256 << 20;

// Shape and offset of a tensor as a header gives them.
struct Entry {
  std::optional<DType> dtype;  // none: one that kvc does not read
  std::string dtype_name;
  std::vector<int64_t> shape;
  int64_t begin = 0;  // relative to the end of the header
  int64_t end = 0;
};

struct Header {
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;
  int64_t data_begin = 0;  // offset of the data in the file
};

// Parses JSON and throws for repeated keys, which nlohmann would quietly merge.
Json ParseUnique(std::string_view text, const std::string& origin) {
  std::vector<std::set<std::string>> open;  // keys seen in each open object
  KVC_CHECK(text.find('\0') == std::string_view::npos, kBadInput,
            "{}: expected a JSON header, got a null byte in it", origin);
  const auto watch = [&](int, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::object_start) {
      open.emplace_back();
    } else if (event == Json::parse_event_t::object_end) {
      open.pop_back();
    } else if (event == Json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      KVC_CHECK(open.back().insert(key).second, kBadInput,
                "{}: expected each name once, got \"{}\" twice", origin, key);
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::exception& error) {
    KVC_THROW(kBadInput, "{}: expected a JSON header, got {}", origin, error.what());
  }
}

int64_t NonNegative(const Json& value, const std::string& origin, const char* what) {
  const bool valid =
      value.is_number_unsigned() &&
      value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  KVC_CHECK(valid, kBadInput, "{}: expected {} to be a non-negative integer, got {}", origin, what,
            value.is_structured() ? "a nested value" : value.dump());
  return value.get<int64_t>();
}

// Returns the bytes of a tensor; throws when the product does not fit.
int64_t CheckedBytes(const Entry& entry, const std::string& origin) {
  int64_t bytes = DTypeBytes(*entry.dtype);
  for (const int64_t size : entry.shape) {
    KVC_CHECK(!__builtin_mul_overflow(bytes, size, &bytes), kBadInput,
              "{}: expected a shape whose size fits 63 bits, got an overflow", origin);
  }
  return bytes;
}

std::optional<DType> DTypeIfKnown(const std::string& name) {
  try {
    return DTypeFromSafetensors(name);
  } catch (const Error&) {
    return std::nullopt;
  }
}

Entry ParseEntry(const Json& info, const std::string& origin) {
  Entry entry;
  entry.dtype_name = GetString(info, "dtype", origin);
  entry.dtype = DTypeIfKnown(entry.dtype_name);
  for (const Json& size : GetArray(info, "shape", origin)) {
    entry.shape.push_back(NonNegative(size, origin, "every size of the shape"));
  }
  const Json& offsets = GetArray(info, "data_offsets", origin);
  KVC_CHECK(offsets.size() == 2, kBadInput, "{}: expected two data_offsets, got {}", origin,
            offsets.size());
  entry.begin = NonNegative(offsets[0], origin, "data_offsets");
  entry.end = NonNegative(offsets[1], origin, "data_offsets");
  KVC_CHECK(entry.begin <= entry.end, kBadInput, "{}: expected data_offsets in order, got {}, {}",
            origin, entry.begin, entry.end);
  if (!entry.dtype) return entry;
  const int64_t bytes = CheckedBytes(entry, origin);
  KVC_CHECK(entry.end - entry.begin == bytes, kBadInput,
            "{}: expected {} bytes for its shape and dtype, got {}", origin, bytes,
            entry.end - entry.begin);
  return entry;
}

// Checks that ranges follow each other without gap or overlap and end with the file.
void CheckRanges(const Header& header, int64_t data_bytes, const std::string& origin) {
  std::vector<std::pair<const Entry*, const std::string*>> order;
  for (const auto& [name, entry] : header.entries) {
    order.emplace_back(&entry, &name);
  }
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.first->begin, a.first->end) < std::pair(b.first->begin, b.first->end);
  });
  int64_t position = 0;
  for (const auto& [entry, name] : order) {
    KVC_CHECK(entry->begin == position, kBadInput,
              "{}: {}: expected its data to begin at {}, got {}{}", origin, *name, position,
              entry->begin, entry->begin < position ? " (overlap)" : " (gap)");
    position = entry->end;
  }
  KVC_CHECK(position == data_bytes, kBadInput, "{}: expected {} bytes of tensor data, got {}{}",
            origin, position, data_bytes,
            position > data_bytes ? "; the file is truncated"
                                  : "; the file has bytes that no tensor owns");
}

// Returns the header's JSON: the text after its length, within the file.
std::string_view HeaderText(std::span<const std::byte> file, const std::string& origin) {
  const bool has_brace = file.size() > 8 && file[8] == std::byte{'{'};
  if (!has_brace) RefuseKnownKind(file, origin, "a safetensors file");
  KVC_CHECK(file.size() >= 8, kBadInput,
            "{}: expected a header length of 8 bytes, got {} bytes; the file is truncated", origin,
            file.size());
  uint64_t length = 0;
  std::memcpy(&length, file.data(), sizeof(length));
  KVC_CHECK(length <= kMaxHeaderBytes, kBadInput,
            "{}: expected a header of at most {} bytes, got {}", origin, kMaxHeaderBytes, length);
  KVC_CHECK(length <= file.size() - 8, kBadInput,
            "{}: expected a header of {} bytes, got {} bytes; the file is truncated", origin,
            length, file.size() - 8);
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, length);
  CheckUtf8(text, origin + ": header");
  KVC_CHECK(text.starts_with('{'), kBadInput, "{}: expected a header that starts with '{{', got {}",
            origin, text.empty() ? "an empty one" : "another byte");
  return text;
}

Header ParseHeader(std::span<const std::byte> file, const std::string& origin) {
  const std::string_view text = HeaderText(file, origin);
  const Json json = ParseUnique(text, origin);

  Header header;
  header.data_begin = 8 + static_cast<int64_t>(text.size());
  for (const auto& item : json.items()) {
    const std::string item_origin = origin + ": " + item.key();
    KVC_CHECK(item.value().is_object(), kBadInput, "{}: expected an object, got {}", item_origin,
              item.value().type_name());
    if (item.key() == "__metadata__") {
      for (const auto& pair : item.value().items()) {
        header.metadata[pair.key()] = GetString(item.value(), pair.key().c_str(), item_origin);
      }
    } else {
      header.entries[item.key()] = ParseEntry(item.value(), item_origin);
    }
  }
  CheckRanges(header, static_cast<int64_t>(file.size()) - header.data_begin, origin);
  return header;
}

// Checks that a shard's name is a plain file name: an index is not trusted to point elsewhere.
void CheckShardName(const std::string& name, const std::string& origin) {
  const bool plain = !name.empty() && name != "." && name != ".." &&
                     name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
                     name.find('\0') == std::string::npos;
  KVC_CHECK(plain, kBadInput, "{}: expected the name of a file in the same directory, got \"{}\"",
            origin, name);
}

// Returns the tensors' names by shard, of a model.safetensors.index.json.
std::map<std::string, std::vector<std::string>> ReadIndex(const fs::path& index) {
  const std::string origin = index.string();
  const Json json = ReadJsonFile(index, kMaxIndexBytes);
  const Json& weight_map = GetObject(json, "weight_map", origin);
  std::map<std::string, std::vector<std::string>> shards;
  for (const auto& item : weight_map.items()) {
    const std::string shard = GetString(weight_map, item.key().c_str(), origin);
    CheckShardName(shard, origin + ": " + item.key());
    shards[shard].push_back(item.key());
  }
  KVC_CHECK(!shards.empty(), kBadInput, "{}: expected a weight_map with tensors, got an empty one",
            origin);
  return shards;
}

}  // namespace

int64_t TensorRef::num_elements() const {
  return static_cast<int64_t>(bytes.size()) / DTypeBytes(dtype);
}

struct SafetensorsReader::Impl {
  struct Place {
    TensorRef tensor;
    size_t file = 0;
    int64_t offset = 0;
  };
  std::vector<fs::path> paths;
  std::vector<MappedFile> files;
  std::map<std::string, Place> places;
  std::map<std::string, std::string> unreadable;
  std::vector<std::string> missing;
  std::map<std::string, std::string> metadata;

  void AddFile(const fs::path& path);
  [[nodiscard]] const Place& Find(const std::string& name) const;
};

void SafetensorsReader::Impl::AddFile(const fs::path& path) {
  MappedFile mapped(path);
  const Header header = ParseHeader(mapped.bytes(), path.string());
  for (const auto& [name, entry] : header.entries) {
    if (!entry.dtype) {
      unreadable.emplace(name, entry.dtype_name);
      continue;
    }
    Place place;
    place.file = files.size();
    place.offset = header.data_begin + entry.begin;
    place.tensor.dtype = *entry.dtype;
    place.tensor.shape = entry.shape;
    place.tensor.bytes = mapped.bytes().subspan(static_cast<size_t>(place.offset),
                                                static_cast<size_t>(entry.end - entry.begin));
    const auto [it, added] = places.emplace(name, std::move(place));
    KVC_CHECK(added, kBadInput, "{}: {}: expected a tensor in one shard, got it in {} too",
              path.string(), name, paths[it->second.file].filename().string());
  }
  metadata.insert(header.metadata.begin(), header.metadata.end());
  paths.push_back(path);
  files.push_back(std::move(mapped));
}

const SafetensorsReader::Impl::Place& SafetensorsReader::Impl::Find(const std::string& name) const {
  const auto other = unreadable.find(name);
  KVC_CHECK(other == unreadable.end(), kUnsupported,
            "{}: expected a dtype that kvc reads, got {}; convert the tensor to F32, F16 or BF16",
            name, other->second);
  const auto it = places.find(name);
  KVC_CHECK(it != places.end(), kBadInput, "{}: expected a tensor \"{}\", got none",
            paths.empty() ? "safetensors" : paths[0].string(), name);
  return it->second;
}

SafetensorsReader::SafetensorsReader(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
SafetensorsReader::SafetensorsReader(SafetensorsReader&&) noexcept = default;
SafetensorsReader& SafetensorsReader::operator=(SafetensorsReader&&) noexcept = default;
SafetensorsReader::~SafetensorsReader() = default;

SafetensorsReader SafetensorsReader::OpenFile(const fs::path& path) {
  auto impl = std::make_unique<Impl>();
  impl->AddFile(path);
  return SafetensorsReader(std::move(impl));
}

SafetensorsReader SafetensorsReader::OpenDirectory(const fs::path& directory) {
  const fs::path single = directory / "model.safetensors";
  const fs::path index = directory / "model.safetensors.index.json";
  std::error_code error;
  if (fs::exists(single, error)) {
    return OpenFile(single);
  }
  KVC_CHECK(fs::is_directory(directory, error), kIo, "{}: expected a model directory, got none",
            directory.string());
  if (!fs::exists(index, error)) {
    const std::string others = ForeignWeights(directory);
    KVC_THROW(kBadInput, "{}: expected model.safetensors or model.safetensors.index.json, got {}",
              directory.string(),
              others.empty() ? "neither; convert other weight files to safetensors first" : others);
  }
  const std::string origin = index.string();
  auto impl = std::make_unique<Impl>();
  for (const auto& [shard, names] : ReadIndex(index)) {
    KVC_CHECK(fs::exists(directory / shard, error), kBadInput,
              "{}: expected the shard {}, got none; the download may be incomplete", origin, shard);
    impl->AddFile(directory / shard);
    for (const std::string& name : names) {
      const auto it = impl->places.find(name);
      const bool is_here = it != impl->places.end() && it->second.file + 1 == impl->files.size();
      if (!is_here && !impl->unreadable.contains(name)) impl->missing.push_back(name);
    }
  }
  std::ranges::sort(impl->missing);
  return SafetensorsReader(std::move(impl));
}

bool SafetensorsReader::Contains(const std::string& name) const {
  return impl_->places.contains(name);
}

const TensorRef& SafetensorsReader::Get(const std::string& name) const {
  return impl_->Find(name).tensor;
}

std::vector<std::string> SafetensorsReader::names() const {
  std::vector<std::string> names;
  for (const auto& [name, place] : impl_->places) {
    names.push_back(name);
  }
  return names;
}

const std::map<std::string, std::string>& SafetensorsReader::unreadable() const {
  return impl_->unreadable;
}

const std::vector<std::string>& SafetensorsReader::missing() const { return impl_->missing; }

const std::map<std::string, std::string>& SafetensorsReader::metadata() const {
  return impl_->metadata;
}

const std::vector<fs::path>& SafetensorsReader::files() const { return impl_->paths; }

void SafetensorsReader::CopyTo(const std::string& name, AtomicFile& file) const {
  const Impl::Place& place = impl_->Find(name);
  file.Copy(impl_->files[place.file], place.offset,
            static_cast<int64_t>(place.tensor.bytes.size()));
}

void SafetensorsReader::Release(const std::string& name) const {
  const Impl::Place& place = impl_->Find(name);
  impl_->files[place.file].Release(place.offset, static_cast<int64_t>(place.tensor.bytes.size()));
}

void SafetensorsReader::Prefetch(const std::string& name) const {
  const Impl::Place& place = impl_->Find(name);
  impl_->files[place.file].Prefetch(place.offset, static_cast<int64_t>(place.tensor.bytes.size()));
}

}  // namespace kvc
