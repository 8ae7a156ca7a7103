#include "profile/profile_state.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/base/error.h"
#include "core/io/atomic_file.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc::profile {
namespace {

namespace fs = std::filesystem;

// Metadata: {"signature", "next_layer", "ranks", "windows"}.
constexpr const char* kProgressKey = "progress";
constexpr const char* kSumPrefix = "sum.";

constexpr const char* kStateName = "state.safetensors";
constexpr const char* kHiddenPrefix = "hidden.";

std::string HiddenName(int64_t window) { return kHiddenPrefix + std::to_string(window); }

fs::path HiddenPath(const fs::path& directory, int64_t layer, int64_t rank) {
  return directory /
         (kHiddenPrefix + std::to_string(layer) + "." + std::to_string(rank) + ".safetensors");
}

// Tells whether a name is that of a file which a killed run was writing.
bool IsHalfWritten(const std::string& name) {
  const std::string target = TargetOfTemporary(name);
  return target == kStateName || target.starts_with(kHiddenPrefix);
}

// Removes the hidden states of all layers but `layer`, and what is half written: no rank writes.
void RemoveHiddenBut(const fs::path& directory, int64_t layer) {
  const std::string kept = kHiddenPrefix + std::to_string(layer) + ".";
  std::error_code error;
  std::vector<fs::path> others;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    const bool old = name.starts_with(kHiddenPrefix) && !name.starts_with(kept);
    if (old || IsHalfWritten(name)) others.push_back(it->path());
  }
  for (const fs::path& other : others) fs::remove(other, error);
  KVC_CHECK(!error, kIo, "{}: expected to remove old hidden states, got \"{}\"", directory.string(),
            error.message());
}

void WriteHidden(const fs::path& path,
                 const std::vector<int64_t>& windows,
                 const std::vector<std::span<const float>>& hidden) {
  std::vector<TensorSpec> specs;
  for (size_t i = 0; i < windows.size(); ++i) {
    specs.push_back({HiddenName(windows[i]), DType::kF32, {std::ssize(hidden[i])}});
  }
  SafetensorsWriter writer(path, specs);
  for (size_t i = 0; i < windows.size(); ++i) {
    writer.Write(HiddenName(windows[i]), std::as_bytes(hidden[i]));
  }
  writer.Close();
}

[[noreturn]] void RefuseBroken(const fs::path& path, const std::string& problem) {
  KVC_THROW(kBadInput, "{}: {}; start the run again", path.string(), problem);
}

// Throws an error that names the first field in which the interrupted run and this one differ.
void CheckSignature(const fs::path& path, const Json& saved, const Json& current) {
  const auto field = [](const Json& signature, const std::string& key) {
    const auto found = signature.find(key);
    return found == signature.end() ? std::string("nothing") : found->dump();
  };
  std::vector<std::string> keys;
  for (const auto& [key, value] : saved.items()) keys.push_back(key);
  for (const auto& [key, value] : current.items()) keys.push_back(key);
  for (const std::string& key : keys) {
    const std::string expected = field(saved, key);
    const std::string actual = field(current, key);
    if (expected != actual) {
      KVC_THROW(kUsage,
                "{}: {}: expected {} as in the interrupted run, got {}; use the same inputs to go "
                "on, or --force to start anew",
                path.parent_path().string(), key, expected, actual);
    }
  }
}

template <class T>
std::vector<T> ReadTensor(const SafetensorsReader& reader,
                          const fs::path& path,
                          const std::string& name,
                          DType dtype) {
  const TensorRef& tensor = reader.Get(name);
  if (tensor.dtype != dtype) RefuseBroken(path, name + ": expected another type");
  std::vector<T> values(tensor.num_elements());
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

}  // namespace

fs::path StatePath(const fs::path& directory) { return directory / kStateName; }

void SaveState(const fs::path& directory,
               const Json& signature,
               int64_t next_layer,
               const ProfileSums& sums,
               const std::vector<std::span<const float>>& hidden,
               Ranks& ranks) {
  const int64_t num_windows = ranks.Total(std::ssize(hidden));
  if (!hidden.empty()) {
    WriteHidden(HiddenPath(directory, next_layer, ranks.rank()), ranks.PartsOf(num_windows),
                hidden);
  }
  ranks.Barrier();
  if (ranks.is_first()) {
    std::vector<TensorSpec> specs;
    for (const auto& [name, sum] : sums) {
      specs.push_back({kSumPrefix + name, DType::kF64, {std::ssize(sum)}});
    }
    const Json progress = {{"signature", signature},
                           {"next_layer", next_layer},
                           {"ranks", ranks.size()},
                           {"windows", num_windows}};
    SafetensorsWriter writer(StatePath(directory), specs, {{kProgressKey, progress.dump()}});
    for (const auto& [name, sum] : sums) {
      writer.Write(kSumPrefix + name, std::as_bytes(std::span(sum)));
    }
    writer.Close();
    RemoveHiddenBut(directory, next_layer);
  }
  ranks.Barrier();  // nobody writes the next layer's before the others' are away
}

std::optional<ProfileState> LoadState(const fs::path& directory,
                                      const Json& signature,
                                      const Ranks& ranks) {
  const fs::path path = StatePath(directory);
  if (!fs::exists(path)) return std::nullopt;
  const auto reader = SafetensorsReader::OpenFile(path);
  const std::string origin = path.string();
  const auto found = reader.metadata().find(kProgressKey);
  if (found == reader.metadata().end()) RefuseBroken(path, "expected the state of a run, got none");
  const Json progress = ParseJson(found->second, origin);
  CheckSignature(path, GetObject(progress, "signature", origin), signature);
  ProfileState state;
  state.next_layer = GetInt(progress, "next_layer", origin);
  state.num_windows = GetInt(progress, "windows", origin);
  const int64_t writers = GetInt(progress, "ranks", origin);
  if (writers < 1) RefuseBroken(path, "ranks: expected 1 or more");
  const std::string prefix = kSumPrefix;
  for (const std::string& name : reader.names()) {
    if (!name.starts_with(prefix)) RefuseBroken(path, name + ": expected sums only");
    state.sums[name.substr(prefix.size())] = ReadTensor<double>(reader, path, name, DType::kF64);
  }
  std::map<int64_t, SafetensorsReader> files;  // by the rank that wrote them
  for (const int64_t window : ranks.PartsOf(state.num_windows)) {
    const int64_t writer = window % writers;
    const fs::path file = HiddenPath(directory, state.next_layer, writer);
    auto opened = files.find(writer);
    if (opened == files.end()) {
      if (!fs::exists(file)) RefuseBroken(file, "expected hidden states of a run, got no file");
      opened = files.emplace(writer, SafetensorsReader::OpenFile(file)).first;
    }
    state.hidden.push_back(
        ReadTensor<float>(opened->second, file, HiddenName(window), DType::kF32));
  }
  return state;
}

void RemoveState(const fs::path& directory) {
  std::error_code error;
  fs::remove(StatePath(directory), error);
  KVC_CHECK(!error, kIo, "{}: expected to remove it, got \"{}\"", StatePath(directory).string(),
            error.message());
  RemoveHiddenBut(directory, -1);
}

}  // namespace kvc::profile
