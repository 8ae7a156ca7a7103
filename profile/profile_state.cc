#include "profile/profile_state.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc::profile {
namespace {

namespace fs = std::filesystem;

constexpr const char* kProgressKey = "progress";  // metadata: {"signature", "next_layer"}
constexpr const char* kSumPrefix = "sum.";

std::string HiddenName(int64_t window) { return "hidden." + std::to_string(window); }

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

fs::path StatePath(const fs::path& directory) { return directory / "state.safetensors"; }

void SaveState(const fs::path& directory,
               const Json& signature,
               int64_t next_layer,
               const ProfileSums& sums,
               const std::vector<std::span<const float>>& hidden) {
  std::vector<TensorSpec> specs;
  for (const auto& [name, sum] : sums) {
    specs.push_back({kSumPrefix + name, DType::kF64, {std::ssize(sum)}});
  }
  for (int64_t w = 0; w < std::ssize(hidden); ++w) {
    specs.push_back({HiddenName(w), DType::kF32, {std::ssize(hidden[w])}});
  }
  const Json progress = {{"signature", signature}, {"next_layer", next_layer}};
  const fs::path path = StatePath(directory);
  fs::path next = path;
  next += ".next";
  SafetensorsWriter writer(next, specs, {{kProgressKey, progress.dump()}});
  for (const auto& [name, sum] : sums) {
    writer.Write(kSumPrefix + name, std::as_bytes(std::span(sum)));
  }
  for (int64_t w = 0; w < std::ssize(hidden); ++w) {
    writer.Write(HiddenName(w), std::as_bytes(hidden[w]));
  }
  writer.Close();
  std::error_code error;
  fs::rename(next, path, error);
  KVC_CHECK(!error, kIo, "{}: expected to save progress, got \"{}\"", path.string(),
            error.message());
}

std::optional<ProfileState> LoadState(const fs::path& directory, const Json& signature) {
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
  const std::string prefix = kSumPrefix;
  int64_t num_windows = 0;
  for (const std::string& name : reader.names()) {
    if (name.starts_with(prefix)) {
      state.sums[name.substr(prefix.size())] = ReadTensor<double>(reader, path, name, DType::kF64);
    } else {
      ++num_windows;
    }
  }
  for (int64_t w = 0; w < num_windows; ++w) {
    state.hidden.push_back(ReadTensor<float>(reader, path, HiddenName(w), DType::kF32));
  }
  return state;
}

void RemoveState(const fs::path& directory) {
  std::error_code error;
  fs::remove(StatePath(directory), error);
  KVC_CHECK(!error, kIo, "{}: expected to remove it, got \"{}\"", StatePath(directory).string(),
            error.message());
}

}  // namespace kvc::profile
