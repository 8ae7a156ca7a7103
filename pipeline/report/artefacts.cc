#include "pipeline/report/artefacts.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "core/base/error.h"
#include "core/io/json.h"
#include "core/io/safetensors.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

// Returns the files DIR/*/NAME by the name of their folder.
std::map<std::string, fs::path> FilesNamed(const fs::path& directory, const char* name) {
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const fs::path file = entry.path() / name;
    if (fs::is_regular_file(file)) files[entry.path().filename().string()] = file;
  }
  return files;
}

std::vector<double> ReadNumbers(const Json& array, const std::string& origin) {
  KVC_CHECK(array.is_array(), kBadInput, "{}: expected a list of numbers, got {}", origin,
            array.dump());
  std::vector<double> numbers;
  for (const Json& value : array) {
    numbers.push_back(value.is_number() ? value.get<double>()
                                        : std::numeric_limits<double>::quiet_NaN());
  }
  return numbers;
}

void ReadBudget(const Json& cache, const std::string& origin, BundleSummary& bundle) {
  if (!cache.contains("budget")) return;
  const Json& budget = GetObject(cache, "budget", origin);
  bundle.unit = GetString(budget, "unit", origin, "");
  if (!budget.contains("values")) return;
  for (const Json& layer : GetArray(budget, "values", origin)) {
    bundle.values.push_back(ReadNumbers(layer, origin));
  }
}

std::vector<float> ReadFloats(const TensorRef& tensor) {
  std::vector<float> values(tensor.num_elements());
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

// Returns the percentiles over the heads at each point, each head's curve divided by its first
// point: a head without importance says nothing and is left out.
ProfileSummary::Curve Percentiles(const std::string& scorer,
                                  const std::vector<float>& values,
                                  size_t points) {
  ProfileSummary::Curve curve{scorer, {}, {}, {}};
  for (size_t p = 0; p < points; ++p) {
    std::vector<double> heads;
    for (size_t at = 0; at < values.size(); at += points) {
      if (values[at] > 0.0F) heads.push_back(values[at + p] / values[at]);
    }
    if (heads.empty()) return curve;
    std::ranges::sort(heads);
    const auto percentile = [&](double share) {
      return heads[std::lround(share * static_cast<double>(heads.size() - 1))];
    };
    curve.low.push_back(percentile(0.1));
    curve.middle.push_back(percentile(0.5));
    curve.high.push_back(percentile(0.9));
  }
  return curve;
}

}  // namespace

std::vector<BundleSummary> ReadBundles(const fs::path& directory) {
  std::vector<BundleSummary> bundles;
  for (const auto& [name, path] : FilesNamed(directory, "manifest.json")) {
    const Json manifest = ReadJsonFile(path);
    const std::string origin = path.string();
    if (!manifest.is_object() || !manifest.contains("cache")) continue;
    const Json& cache = GetObject(manifest, "cache", origin);
    BundleSummary& bundle = bundles.emplace_back();
    bundle.name = name;
    bundle.method = GetString(cache, "method", origin, "");
    bundle.budget = GetString(manifest, "budget", origin, "");
    ReadBudget(cache, origin, bundle);
    if (!manifest.contains("expected_bytes")) continue;
    for (const Json& length : GetArray(manifest, "expected_bytes", origin)) {
      bundle.lengths.push_back({GetInt(length, "length", origin),
                                GetInt(length, "full_bytes", origin),
                                GetInt(length, "allocated_bytes", origin)});
    }
  }
  return bundles;
}

std::vector<ProfileSummary> ReadProfiles(const fs::path& directory) {
  std::vector<ProfileSummary> profiles;
  const std::string prefix = "curve.";
  for (const auto& [name, path] : FilesNamed(directory, "profile.safetensors")) {
    const SafetensorsReader reader = SafetensorsReader::OpenFile(path);
    ProfileSummary& profile = profiles.emplace_back(ProfileSummary{name, {}});
    for (const std::string& tensor : reader.names()) {
      if (!tensor.starts_with(prefix)) continue;
      const TensorRef& values = reader.Get(tensor);  // [L, G, points]
      KVC_CHECK(values.dtype == DType::kF32 && values.shape.size() == 3 && values.shape[2] > 1,
                kBadInput,
                "{}: {}: expected curves [layers, heads, points] in F32, got another shape "
                "or type; make the profile anew",
                path.string(), tensor);
      profile.curves.push_back(Percentiles(tensor.substr(prefix.size()), ReadFloats(values),
                                           static_cast<size_t>(values.shape[2])));
    }
  }
  return profiles;
}

}  // namespace kvc::report
