#include "pipeline/report/results.h"

#include <limits>
#include <map>

#include "core/base/error.h"
#include "core/io/json.h"

namespace kvc::report {
namespace {

namespace fs = std::filesystem;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Returns a number, NaN if it is absent or null.
double NumberOr(const Json& json, const char* key, const std::string& origin) {
  return GetDouble(json, key, origin, kNone);
}

std::string TextOr(const Json& json, const char* key, const std::string& origin) {
  return GetString(json, key, origin, "");
}

CacheBytes ReadCache(const Json& json, const char* key, const std::string& origin) {
  if (!json.contains(key)) return {};
  const Json& cache = GetObject(json, key, origin);
  return {GetInt(cache, "full_bytes", origin, 0), GetInt(cache, "allocated_bytes", origin, 0),
          GetInt(cache, "peak_bytes", origin, 0)};
}

Divergence ReadDivergence(const Json& json, const std::string& origin) {
  const auto number = [&](const char* key) { return NumberOr(json, key, origin); };
  return {number("kld_mean"),
          number("kld_stderr"),
          number("same_top"),
          number("perplexity"),
          number("perplexity_against"),
          ReadCache(json, "cache", origin),
          ReadCache(json, "cache_against", origin)};
}

Perplexity ReadPerplexity(const Json& json, const std::string& origin) {
  return {NumberOr(json, "perplexity", origin), NumberOr(json, "nll", origin),
          NumberOr(json, "stderr", origin), ReadCache(json, "cache", origin)};
}

Needles ReadNeedles(const Json& json, const std::string& origin) {
  Needles needles{NumberOr(json, "accuracy", origin), {}};
  for (const Json& cell : GetArray(json, "cells", origin)) {
    needles.cells.push_back({GetInt(cell, "length", origin), GetDouble(cell, "depth", origin),
                             GetDouble(cell, "accuracy", origin)});
  }
  return needles;
}

Tasks ReadTasks(const Json& json, const std::string& origin) {
  Tasks tasks{NumberOr(json, "score", origin), {}};
  for (const Json& cell : GetArray(json, "cells", origin)) {
    TaskCell& one = tasks.cells.emplace_back();
    one.task = TextOr(cell, "task", origin);
    if (cell.contains("length")) one.length = GetInt(cell, "length", origin);
    one.score = NumberOr(cell, "score", origin);
    one.error = NumberOr(cell, "stderr", origin);
    one.samples = GetInt(cell, "samples", origin, 0);
  }
  return tasks;
}

Comparison ReadComparison(const Json& json, const std::string& origin) {
  Comparison comparison;
  for (const Json& line : GetArray(json, "lines", origin)) {
    const auto number = [&](const char* key) { return NumberOr(line, key, origin); };
    comparison.lines.push_back({TextOr(line, "name", origin), TextOr(line, "budget", origin),
                                number("prompt_share"), number("kld_mean"), number("kld_stderr"),
                                number("kld_median"), number("kld_p999"), number("perplexity"),
                                number("same_top"), number("needle_accuracy"),
                                number("ruler_score")});
  }
  if (!json.contains("impossible")) return comparison;
  for (const Json& line : GetArray(json, "impossible", origin)) {
    comparison.impossible.push_back({TextOr(line, "name", origin), TextOr(line, "budget", origin),
                                     TextOr(line, "reason", origin)});
  }
  return comparison;
}

Speed ReadSpeed(const Json& json, const std::string& origin) {
  const auto text = [&](const char* key) { return TextOr(json, key, origin); };
  Speed speed{text("method"), text("budget"), text("device"), text("ids"), 0, 0, 0, kNone, {}};
  speed.threads = GetInt(json, "threads", origin, 0);
  speed.batch = GetInt(json, "batch", origin, 1);
  const Json& prompt = GetObject(json, "prompt", origin);
  speed.prompt_tokens = GetInt(prompt, "tokens", origin, 0);
  speed.prompt_rate = NumberOr(GetObject(prompt, "tokens_per_second", origin), "mean", origin);
  for (const Json& depth : GetArray(json, "depths", origin)) {
    const Json& rates = GetObject(depth, "decode_tokens_per_second", origin);
    speed.depths.push_back({GetInt(depth, "depth", origin), NumberOr(rates, "mean", origin),
                            NumberOr(rates, "deviation", origin),
                            ReadCache(depth, "cache", origin)});
  }
  return speed;
}

std::vector<Gate> ReadGates(const Json& json, const std::string& origin) {
  std::vector<Gate> gates;
  if (!json.contains("gates")) return gates;
  for (const Json& gate : GetArray(json, "gates", origin)) {
    gates.push_back({TextOr(gate, "line", origin), TextOr(gate, "name", origin),
                     NumberOr(gate, "limit", origin), NumberOr(gate, "value", origin),
                     GetBool(gate, "passed", origin, false)});
  }
  return gates;
}

std::vector<double> ReadNumbers(const Json& array, const std::string& origin) {
  KVC_CHECK(array.is_array(), kBadInput, "{}: expected a list of numbers, got {}", origin,
            array.dump());
  std::vector<double> numbers;
  for (const Json& value : array)
    numbers.push_back(value.is_number() ? value.get<double>() : kNone);
  return numbers;
}

// The layers of kvc-factorize; other commands' are no objects.
std::vector<ThinLayer> ReadLayers(const Json& json, const std::string& origin) {
  std::vector<ThinLayer> layers;
  const Json all = json.value("layers", Json::array());
  if (!all.is_array() || all.empty() || !all[0].is_object()) return layers;
  for (const Json& layer : all) {
    ThinLayer& one = layers.emplace_back(ThinLayer{NumberOr(layer, "rank", origin), {}});
    const Json spectra = layer.value("spectra", Json::array());
    if (!spectra.empty()) one.spectrum = ReadNumbers(spectra[0], origin);
  }
  return layers;
}

Result ReadResult(const std::string& name, const Json& json, const std::string& origin) {
  Result result;
  result.name = name;
  result.command = TextOr(json, "command", origin);
  result.seconds = NumberOr(json, "seconds", origin);
  result.peak_rss_bytes = GetInt(json, "peak_rss_bytes", origin, 0);
  const auto has = [&](const char* key) { return json.contains(key) && !json[key].is_null(); };
  if (has("kld_mean")) {
    result.divergence = ReadDivergence(json, origin);
  } else if (has("perplexity") && has("nll")) {  // kvc-factorize has a perplexity of another kind
    result.perplexity = ReadPerplexity(json, origin);
  }
  if (has("cells") && has("accuracy")) result.needles = ReadNeedles(json, origin);
  if (has("cells") && has("score")) result.tasks = ReadTasks(json, origin);
  if (has("lines") && json["lines"].is_array() && !json["lines"].empty()) {
    result.comparison = ReadComparison(json, origin);
  }
  if (has("depths") && has("prompt") && json["prompt"].is_object() &&
      json["prompt"].contains("tokens_per_second")) {  // a dry run only has the depths
    result.speed = ReadSpeed(json, origin);
  }
  result.gates = ReadGates(json, origin);
  result.layers = ReadLayers(json, origin);
  return result;
}

// The last `parts` of a name's parts between '-'.
std::string EndOf(const std::string& name, size_t parts) {
  size_t at = name.size();
  for (size_t i = 0; i < parts && at != std::string::npos; ++i) {
    at = at == 0 ? std::string::npos : name.rfind('-', at - 1);
  }
  return at == std::string::npos ? name : name.substr(at + 1);
}

// Returns the kind of result of which a column may hold only one; 0 for other kinds.
int KindOf(const Result& result) {
  return result.divergence ? 1 : result.perplexity ? 2 : result.needles ? 3 : result.speed ? 4 : 0;
}

}  // namespace

double CacheBytes::share() const {
  return full > 0 ? static_cast<double>(allocated) / static_cast<double>(full) : kNone;
}

fs::path ResultsFolder(const fs::path& directory) {
  return fs::is_directory(directory / "results") ? directory / "results" : directory;
}

std::vector<Result> ReadResults(const fs::path& directory) {
  std::map<std::string, fs::path> files;
  for (const auto& entry : fs::directory_iterator(directory)) {
    if (entry.path().extension() == ".json") files[entry.path().stem().string()] = entry.path();
  }
  std::vector<Result> results;
  for (const auto& [name, path] : files) {
    const Json json = ReadJsonFile(path);
    if (!json.is_object() || !(json.contains("command") || json.contains("lines"))) continue;
    results.push_back(ReadResult(name, json, path.string()));
  }
  return results;
}

std::vector<std::string> LabelsOf(const std::vector<Result>& results) {
  std::vector<size_t> parts(results.size(), 1);
  std::vector<std::string> labels;
  labels.reserve(results.size());
  for (const Result& result : results) labels.push_back(EndOf(result.name, 1));
  while (true) {
    std::map<std::pair<std::string, int>, int> count;
    for (size_t i = 0; i < results.size(); ++i) ++count[{labels[i], KindOf(results[i])}];
    bool longer = false;
    const std::vector<std::string> before = labels;
    for (const auto& [key, number] : count) {
      if (number < 2 || key.second == 0) continue;
      for (size_t i = 0; i < results.size(); ++i) {
        if (before[i] != key.first || labels[i] != before[i]) continue;
        labels[i] = EndOf(results[i].name, ++parts[i]);
        longer = longer || labels[i] != before[i];
      }
    }
    if (!longer) return labels;
  }
}

}  // namespace kvc::report
